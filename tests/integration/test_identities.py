"""What is kept of identities: one user does not use it up for others, and a full disk is told."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MakeBundle
from runrootless.emulation.stores.entry_file import USER_LINES
from support.bundles import Bundle
from support.containers import Runrootless
from support.namespaces import MountNamespace
from support.processes import eventually
from support.trees import Tree
from support.users import AS_ROOT, Account, Unprivileged

LIMITS = f"""
import os, resource
os.chmod(".", 0o777)
def in_child(f):
    pid = os.fork()
    if pid == 0:
        f()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
def limits(uid):
    os.setgroups([7]); os.setgid(uid); os.setuid(uid)
    for number in range({USER_LINES} + 100):
        try:
            resource.setrlimit(15, (number, 2**62 + uid))
        except (OSError, ValueError) as error:
            print(uid, number, error, flush=True)
            break
    for number in range(10):
        resource.setrlimit(15, (number, 2**62 + uid))
    # At the quota, and with a limit of its own.
    os.system("/srv/set-id -u; id -u; su -c 'id -u'")
    pid = os.fork()
    if pid == 0:
        os.execv("/usr/bin/prlimit", ["prlimit", "--rttime", "--noheadings", "--output", "SOFT"])
    os.waitpid(pid, 0)
in_child(lambda: limits(33))
in_child(lambda: limits(34))
def many():
    for uid in range(1000, 4000):
        os.setgroups([uid, uid + 1]); os.setresgid(uid, uid, 0); os.setresuid(uid, uid, 0)
        assert os.getresuid() == (uid, uid, 0)
        os.setresuid(0, 0, 0); os.setresgid(0, 0, 0)
    resource.setrlimit(15, (77, 78))
    os.setuid(5)
    print(os.getresuid(), resource.getrlimit(15), flush=True)
in_child(many)
"""


def write(bundle: Bundle, script: str) -> None:
    with open(f"{bundle.rootfs}/srv/script.py", "w") as file:
        file.write(script)


def test_a_user_uses_up_its_own_entries_only(
    bundle: MakeBundle, runrootless: Runrootless, tools_tree: Tree
) -> None:
    ours = bundle(tools_tree, copy=True)
    write(ours, LIMITS)
    prepare = "cp /usr/bin/id /srv/set-id; chmod 4755 /srv/set-id; passwd -d root >/dev/null"
    done = runrootless.run(ours.script(f"{prepare}; python3 /srv/script.py"), timeout=900).check()
    refused = "not allowed to raise maximum limit"
    expected = []
    for uid in ("33", "34"):
        expected += [f"{uid} {USER_LINES} {refused}", "0", uid, "0", "9"]
    assert list(map(str.strip, done.stdout.splitlines())) == [*expected, "(5, 5, 5) (77, 78)"], (
        done.stderr
    )


@pytest.fixture
def small(account: Account) -> Iterator[Runrootless]:
    """Runs the command with its state on a small file system."""
    if not AS_ROOT:
        pytest.skip("only root can mount a file system")
    namespace = MountNamespace("small")
    user = Unprivileged(account, namespace)
    user.run(["mkdir", "-m", "700", "/mnt/run"]).check()
    user.env["XDG_RUNTIME_DIR"] = "/mnt/run"
    yield Runrootless(user)
    user.close()
    namespace.close()


FILL = """
import os
def become():
    os.setgroups([]); os.setgid(33); os.setuid(33); print(os.getresuid(), flush=True)
def in_child():
    pid = os.fork()
    if pid == 0:
        become()
        os._exit(0)
    os.waitpid(pid, 0)
in_child()
last = 0
try:
    for number in range(100000):
        os.setgroups([number, 1000000]); last = number
except OSError as error:
    print(error, os.getgroups() == [last, 1000000], flush=True)
try:
    os.setgroups([number, 2000000])
except OSError as error:
    print(error, flush=True)
os.setgroups([5, 1000000]); print(os.getgroups(), flush=True)
become()
"""


def test_a_full_disk_is_told(bundle: MakeBundle, small: Runrootless, tools_tree: Tree) -> None:
    ours = bundle(tools_tree, copy=True)
    write(ours, FILL)
    script = "python3 /srv/script.py >/srv/output 2>&1; echo done >>/srv/output; sleep 1000000"
    name, log = small.new_id(), os.path.join(small.user.home, "log")
    small("--log", log, "run", "--detach", "--bundle", ours.script(script).path, name).check()

    def output() -> list[str]:
        path = Path(f"{ours.rootfs}/srv/output")
        return path.read_text().splitlines() if path.exists() else []

    try:
        eventually(lambda: output()[-1:] == ["done"], lambda: str(output()), timeout=60)
        memory = "[Errno 12] Cannot allocate memory"
        assert output() == [
            "(33, 33, 33)",
            f"{memory} True",
            memory,
            # What is noted already still works.
            "[5, 1000000]",
            "(33, 33, 33)",
            "done",
        ]
        with open(log) as file:
            (line,) = [line for line in file if "takes no more" in line]
        assert "No space left on device" in line and "/mnt/run/" in line
        # Longer than the room that is left in the last page.
        groups = [f"--additional-gids={31337 + number}" for number in range(40)]
        done = small("exec", "--user", "5:6", *groups, name, "id")
        assert done.returncode == 255
        (line,) = done.stderr.splitlines()
        assert "No space left on device; make room there" in line and "/mnt/run/" in line
        assert small("exec", "--user", "5:6", name, "id", "-u").check().stdout == "5\n"
    finally:
        small("delete", "--force", name).check()
    small.assert_nothing_left()
