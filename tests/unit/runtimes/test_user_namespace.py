"""The user namespace around the runtime: the kernel says what can be done in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runrootless.runtimes import user_namespace
from support.users import Unprivileged

APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")

pytestmark = pytest.mark.skipif(
    APPARMOR.exists() and APPARMOR.read_text().strip() == "1",
    reason="AppArmor keeps user namespaces from Python",
)

PRELUDE = """\
import os, sys
from runrootless.runtimes import user_namespace

def link():
    return os.readlink("/proc/self/ns/user")

def status(name):
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(name + ":"):
                return line.split(":")[1].strip()

KEPT = 1 << 18 | 1 << 19 | 1 << 21
"""

KEPT = 1 << 18 | 1 << 19 | 1 << 21


def run(user: Unprivileged, script: str) -> str:
    return user.run([sys.executable, "-c", PRELUDE + script]).check().stdout


def test_the_ids_stay_the_same(unprivileged: Unprivileged) -> None:
    output = run(
        unprivileged,
        "before = link(), os.getresuid(), os.getresgid()\n"
        "user_namespace.enter_new()\n"
        "after = link(), os.getresuid(), os.getresgid()\n"
        "assert before[0] != after[0] and before[1:] == after[1:], (before, after)\n"
        "print(open('/proc/self/uid_map').read(), open('/proc/self/gid_map').read())\n",
    )
    uid, gid = str(unprivileged.account.uid), str(unprivileged.account.gid)
    assert output.split() == [uid, uid, "1", gid, gid, "1"]


def test_three_capabilities_are_left_to_the_runtime(unprivileged: Unprivileged) -> None:
    """After execve(2): CAP_SYS_PTRACE and CAP_SYS_ADMIN, and no others."""
    output = run(
        unprivileged,
        "user_namespace.enter_new()\n"
        "os.execv('/bin/grep', ['grep', '-E', '^Cap(Eff|Prm|Inh|Amb):', '/proc/self/status'])\n",
    )
    assert [int(line.split()[1], 16) for line in output.splitlines()] == [KEPT] * 4


def test_a_process_that_hides_can_be_looked_into(unprivileged: Unprivileged) -> None:
    """As the runtime's parent and the agent do with a process that is not dumpable."""
    hide = (
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); "
        "print(flush=True); sys.stdin.read()"
    )
    look = (
        "import subprocess\n"
        f"hidden = subprocess.Popen([sys.executable, '-c', {hide!r}],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "hidden.stdout.readline()\n"
        "try:\n"
        "    print(os.readlink(f'/proc/{hidden.pid}/ns/user') == link())\n"
        "except PermissionError:\n"
        "    print('refused')\n"
        "hidden.communicate()\n"
    )
    assert run(unprivileged, look) == "refused\n"
    assert run(unprivileged, "user_namespace.enter_new()\n" + look) == "True\n"


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_it_is_found_again_from_a_process_inside(unprivileged: Unprivileged, depth: int) -> None:
    """The container's namespace is a child of it; its process may have made others below."""
    run(
        unprivileged,
        "import tempfile\n"
        "directory = tempfile.mkdtemp()\n"
        "ready, told = os.pipe()\n"
        "wait, go = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.close(go)\n"
        "    user_namespace.enter_new()\n"
        "    user_namespace.note(directory)\n"
        "    os.write(told, link().encode())\n"
        f"    for _ in range({depth}):\n"
        "        assert user_namespace.enter_new()\n"
        "    os.write(told, b'.')\n"
        "    os.read(wait, 1)\n"
        "    os._exit(0)\n"
        "outer = b''\n"
        "while not outer.endswith(b'.'):\n"
        "    outer += os.read(ready, 100)\n"
        "assert link() != outer[:-1].decode()\n"
        f"assert user_namespace.is_as_begun(child, directory) is {depth == 1}\n"
        "user_namespace.enter_around(child, directory)\n"
        "assert link() == outer[:-1].decode()\n"
        "assert int(status('CapAmb'), 16) == KEPT\n"
        # A second time there is nothing left to do.
        "user_namespace.enter_around(child, directory)\n"
        "assert link() == outer[:-1].decode()\n",
    )


def test_nothing_happens_without_one(unprivileged: Unprivileged) -> None:
    run(
        unprivileged,
        "import tempfile\n"
        "before = link()\n"
        "noted, empty = tempfile.mkdtemp(), tempfile.mkdtemp()\n"
        "user_namespace.note(noted)\n"
        "for pid in (os.getpid(), 1 << 30):\n"
        "    for directory in (noted, empty):\n"
        "        user_namespace.enter_around(pid, directory)\n"
        "assert link() == before\n",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="for root")
def test_root_needs_none() -> None:
    script = "before = link()\nuser_namespace.enter_new()\nassert link() == before\n"
    subprocess.run([sys.executable, "-c", PRELUDE + script], check=True)


def test_without_user_namespaces_all_stays_as_it_is(unprivileged: Unprivileged) -> None:
    """A seccomp filter or a sysctl may forbid them; the runtime says so in its words."""
    run(
        unprivileged,
        "class Library:\n"
        "    def unshare(self, flags): return -1\n"
        "user_namespace._LIBC = Library()\n"
        "before = link()\n"
        "assert not user_namespace.enter_new()\n"
        "assert link() == before\n",
    )


@pytest.mark.parametrize(
    ("runtime", "expected"), [("/usr/sbin/runc", True), ("/usr/bin/crun", False), ("", True)]
)
def test_apparmor_may_have_a_profile_of_the_runtime(
    runtime: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: the files of a host on which AppArmor restricts user namespaces."""
    (tmp_path / "switch").write_text("1\n")
    (tmp_path / "runc").touch()
    monkeypatch.setattr(user_namespace, "_may_trace", lambda: False)
    monkeypatch.setattr(user_namespace, "_APPARMOR_SWITCH", str(tmp_path / "switch"))
    monkeypatch.setattr(user_namespace, "_APPARMOR_PROFILES", str(tmp_path))
    assert user_namespace.enter_new(runtime) is expected
    # The user's own build has none, whatever its name.
    assert user_namespace.enter_new(str(tmp_path / "runc")) is False


def test_the_runtime_may_mount_where_the_caller_does_not_see_it(unprivileged: Unprivileged) -> None:
    output = run(
        unprivileged,
        "before = os.readlink('/proc/self/ns/mnt')\n"
        "user_namespace.enter_new()\n"
        "assert before != os.readlink('/proc/self/ns/mnt')\n"
        "mount = 'mount --bind /bin/true /bin/false && /bin/false && echo mounted'\n"
        "os.execv('/bin/sh', ['sh', '-c', mount])\n",
    )
    assert output == "mounted\n"
    assert unprivileged.run(["/bin/false"]).returncode == 1
