"""Containers from their creation to their end, and what is left of them: nothing.

That nothing is left, neither a process nor a directory, is checked at the end
of each of these tests by the fixture ``runrootless``.
"""

import json
import os
import re
import signal

import pytest

from conftest import MakeBundle, both_runtimes
from support.bundles import Bundle
from support.containers import Runrootless
from support.processes import eventually, processes, read_line
from support.users import Unprivileged

pytestmark = both_runtimes

# In the words of runc and crun.
NOT_THERE = r"container does not exist|error opening file .*No such file or directory"
NOT_STOPPED = r"not stopped|not in `created` or `stopped` state"

SLEEP = "trap 'exit 3' TERM; echo up >/dev/shm/up; while :; do sleep 0.05; done"


class Detached:
    """A container in the background, and the process ID of its init."""

    def __init__(self, runrootless: Runrootless, bundle: Bundle, *verb: str) -> None:
        self.runrootless = runrootless
        self.id = runrootless.new_id()
        self.pid_file = os.path.join(runrootless.user.home, self.id)
        args = [*(verb or ("run", "--detach")), "--bundle", bundle.path]
        runrootless(*args, "--pid-file", self.pid_file, self.id).check()
        with open(self.pid_file) as file:
            self.pid = int(file.read())

    def exec(self, *args: str, options: tuple[str, ...] = ()) -> str:
        return self.runrootless("exec", *options, self.id, *args).check().stdout

    def status(self) -> str:
        state = json.loads(self.runrootless("state", self.id).check().stdout)
        assert state["id"] == self.id
        status: str = state["status"]
        return status

    def wait_stopped(self) -> None:
        eventually(lambda: self.status() == "stopped", "the end of the container")

    def delete(self, *options: str) -> None:
        self.runrootless("delete", *options, self.id).check()


def read(path: str) -> str:
    """Return what a file holds; nothing where there is none."""
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


@pytest.fixture
def detached(bundle: MakeBundle, runrootless: Runrootless) -> Detached:
    """A running container."""
    container = Detached(runrootless, bundle().script(SLEEP))
    assert container.status() == "running"
    return container


def test_detached_container_ends_by_a_signal(detached: Detached) -> None:
    eventually(lambda: detached.exec("sh", "-c", "cat /dev/shm/up 2>/dev/null || true"), "the trap")
    detached.runrootless("kill", detached.id, "TERM").check()
    detached.wait_stopped()
    detached.delete()
    gone = detached.runrootless("state", detached.id)
    assert gone.returncode == 1
    assert re.search(NOT_THERE, gone.stderr)


def test_delete_refuses_a_running_container(detached: Detached) -> None:
    refused = detached.runrootless("delete", detached.id)
    assert refused.returncode == 1
    assert re.search(NOT_STOPPED, refused.stderr)
    assert detached.status() == "running"
    # Emulation goes on.
    assert detached.exec("stat", "-c", "%U:%G", "/etc/shadow") == "root:shadow\n"
    detached.delete("--force")


def test_delete_by_force(detached: Detached) -> None:
    detached.delete("--force")
    eventually(
        lambda: detached.pid not in [process.pid for process in processes()], "the end of its init"
    )


def test_init_killed_from_outside(detached: Detached) -> None:
    os.kill(detached.pid, signal.SIGKILL)
    detached.wait_stopped()
    detached.delete()


def test_create_and_start(bundle: MakeBundle, runrootless: Runrootless) -> None:
    name = f"seen-{os.path.basename(runrootless.user.session)}"
    writing = bundle().script(f"stat -c %U:%G /etc/shadow >/srv/{name}; chown 5:6 /srv/{name}")
    created = Detached(runrootless, writing, "create")
    assert created.status() == "created"
    seen = f"{writing.rootfs}/srv/{name}"
    assert not os.path.exists(seen)
    runrootless("start", created.id).check()
    created.wait_stopped()
    with open(seen) as file:
        assert file.read() == "root:shadow\n"
    created.delete()


def test_created_container_that_is_never_started(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    created = Detached(runrootless, bundle().script("exit 0"), "create")
    created.delete("--force")


def test_exec(detached: Detached) -> None:
    assert detached.exec("id") == "uid=0(root) gid=0(root) groups=0(root)\n"
    assert detached.exec("stat", "-c", "%U:%G", "/etc/shadow", "/etc/passwd").split() == [
        "root:shadow",
        "root:root",
    ]
    detached.delete("--force")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("33:33", "uid=33(www-data) gid=33(www-data) groups=33(www-data)"),
        ("33", "uid=33(www-data) gid=0(root) groups=0(root)"),
        ("1000:1001", "uid=1000 gid=1001 groups=1001"),
    ],
)
def test_exec_as_another_user(user: str, expected: str, detached: Detached) -> None:
    assert detached.exec("id", options=("--user", user)) == expected + "\n"
    detached.delete("--force")


def test_exec_of_many_at_once(detached: Detached) -> None:
    user = detached.runrootless.user
    running = [
        user.start(
            detached.runrootless.command(
                "exec",
                "--user",
                f"{n}:{n}",
                detached.id,
                "sh",
                "-c",
                "id -u; stat -c %G /etc/shadow",
            )
        )
        for n in range(1, 9)
    ]
    for n, process in enumerate(running, 1):
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stdout) == (0, f"{n}\nshadow\n"), stderr
    detached.delete("--force")


def test_exec_process_outlives_nothing(detached: Detached) -> None:
    """A process in the background of an exec is still emulated when exec has returned."""
    script = (
        "(until [ -e /dev/shm/go ]; do sleep 0.01; done;"
        " stat -c %G /etc/shadow >/dev/shm/seen) </dev/null >/dev/null 2>&1 &"
    )
    detached.exec("sh", "-c", script)
    detached.exec("touch", "/dev/shm/go")
    seen = eventually(
        lambda: detached.exec("sh", "-c", "cat /dev/shm/seen 2>/dev/null || true"), "its answer"
    )
    assert seen == "shadow\n"
    detached.delete("--force")


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 1", 1), ("exit 42", 42), ("exit 255", 255), ("kill -9 $$; :", None)],
)
def test_exit_codes(
    script: str, code: int | None, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    # Init may ignore what it sends itself, a child may not.
    if code is None:
        script, code = "sh -c 'kill -9 $$'; exit $?", 137
    runrootless.run(bundle().script(script)).check(code)


def test_exit_code_of_an_init_that_is_killed(bundle: MakeBundle, runrootless: Runrootless) -> None:
    name = runrootless.new_id()
    pid_file = f"{runrootless.user.home}/pid"
    process = runrootless.user.start(
        runrootless.command(
            "run", "--pid-file", pid_file, "--bundle", bundle().script(SLEEP).path, name
        )
    )
    pid = int(eventually(lambda: read(pid_file), "its start"))
    os.kill(pid, signal.SIGKILL)
    assert process.wait(60) == 128 + signal.SIGKILL
    process.communicate(timeout=60)


def test_exit_codes_of_exec(detached: Detached) -> None:
    for code in (0, 7):
        detached.runrootless("exec", detached.id, "sh", "-c", f"exit {code}").check(code)
    detached.delete("--force")


def test_command_that_does_not_exist(bundle: MakeBundle, runrootless: Runrootless) -> None:
    failed = runrootless.run(bundle().set(["no-such-command"]))
    assert failed.returncode not in (0, 137)
    assert "no-such-command" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_foreground_runtime_killed(
    bundle: MakeBundle, runrootless: Runrootless, runtime: str
) -> None:
    """As with runc alone the container goes on, with crun it ends; it can be deleted."""
    name = runrootless.new_id()
    ours = bundle().script("echo up; sleep 1000")
    process = runrootless.user.start(runrootless.command("run", "--bundle", ours.path, name))
    assert read_line(process) == "up\n"
    # The command has become the runtime.
    [foreground] = [p for p in runrootless.user.account.processes() if p.pid == process.pid]
    assert re.match(rf"{runtime}\b.* run ", foreground.command)
    process.kill()
    process.wait(60)
    if runtime == "runc":
        exec_ = runrootless("exec", name, "stat", "-c", "%G", "/etc/shadow")
        assert exec_.check().stdout == "shadow\n"
        runrootless("kill", name, "KILL").check()
    runrootless("delete", "--force", name).check()
    process.communicate(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_container(
    number: signal.Signals, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    script = f"trap 'echo got it; exit 9' {number.name[3:]}; echo up; while :; do sleep 0.05; done"
    name = runrootless.new_id()
    process = runrootless.user.start(
        runrootless.command("run", "--bundle", bundle().script(script).path, name)
    )
    assert read_line(process) == "up\n"
    process.send_signal(number)
    assert read_line(process) == "got it\n"
    assert process.wait(60) == 9
    process.communicate(timeout=60)


def test_list_and_ps(detached: Detached) -> None:
    assert detached.runrootless("list", "--quiet").check().stdout.split() == [detached.id]
    listed = detached.runrootless("list").check().stdout
    assert re.search(rf"{detached.id}\s+{detached.pid}\s+running", listed), listed
    detached.delete("--force")
    assert detached.runrootless("list", "--quiet").check().stdout == ""


def test_two_containers_of_one_bundle(bundle: MakeBundle, runrootless: Runrootless) -> None:
    shared = bundle().script(SLEEP)
    first, second = Detached(runrootless, shared), Detached(runrootless, shared)
    first.exec("sh", "-c", "touch /srv/both; chown 12:34 /srv/both")
    assert second.exec("stat", "-c", "%u:%g", "/srv/both") == "12:34\n"
    first.delete("--force")
    assert second.exec("stat", "-c", "%u:%g", "/srv/both") == "12:34\n"
    second.delete("--force")


def test_the_same_id_twice(detached: Detached, bundle: MakeBundle) -> None:
    again = detached.runrootless("run", "--bundle", bundle().script(":").path, detached.id)
    assert again.returncode == 1
    assert detached.id in again.stderr
    # The first is not harmed.
    assert detached.exec("stat", "-c", "%G", "/etc/shadow") == "shadow\n"
    detached.delete("--force")


def test_the_bundle_is_not_changed(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().script("touch /tmp/x; chown 1:1 /tmp/x; rm /tmp/x")
    with open(ours.config_path, "rb") as file:
        before = file.read()
    status = os.stat(ours.config_path)
    names = sorted(os.listdir(ours.path))
    runrootless.run(ours).check()
    with open(ours.config_path, "rb") as file:
        assert file.read() == before
    after = os.stat(ours.config_path)
    assert (after.st_mtime_ns, after.st_ino) == (status.st_mtime_ns, status.st_ino)
    # The agent ends a moment after the runtime, and takes its empty side files with it.
    eventually(lambda: sorted(os.listdir(ours.path)) == names, "no other files")


def test_ownership_outlives_the_container(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().script(
        "mkdir -p /srv/kept/d; cd /srv/kept; touch f; chown 1:2 f; chown 3000000000:4 d"
    )
    runrootless.run(ours).check()
    runrootless.assert_nothing_left()
    done = runrootless.run(ours.script("cd /srv/kept; stat -c '%u:%g %n' f d"))
    assert done.check().stdout == "1:2 f\n3000000000:4 d\n"


def test_the_current_directory_is_the_bundle(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().script("echo fine")
    done = runrootless("run", runrootless.new_id(), cwd=ours.path)
    assert done.check().stdout == "fine\n"


def test_a_bundle_by_a_relative_path(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().script("echo fine")
    directory, name = os.path.split(ours.path)
    done = runrootless("run", "-b", name, runrootless.new_id(), cwd=directory)
    assert done.check().stdout == "fine\n"


def test_a_bundle_behind_a_symlink(bundle: MakeBundle, runrootless: Runrootless) -> None:
    """As home directories often are."""
    ours = bundle(copy=True).script("stat -c %G /etc/shadow")
    link = os.path.join(runrootless.user.home, "link")
    os.symlink(ours.path, link)
    done = runrootless("run", "--bundle", link, runrootless.new_id())
    assert done.check().stdout == "shadow\n"
    done = runrootless("run", runrootless.new_id(), cwd=link)
    assert done.check().stdout == "shadow\n"


def test_standard_streams_pass_through(bundle: MakeBundle, runrootless: Runrootless) -> None:
    done = runrootless.run(bundle().script("cat; echo error >&2"), input="some\ninput\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "some\ninput\n", "error\n")


def test_without_a_runtime_directory_in_the_environment(
    bundle: MakeBundle, unprivileged: Unprivileged, runrootless: Runrootless
) -> None:
    """A user who came by su or cron has no XDG_RUNTIME_DIR."""
    env = {k: v for k, v in unprivileged.env.items() if k != "XDG_RUNTIME_DIR"}
    ours = bundle().script("stat -c %G /etc/shadow")
    command = runrootless.command("run", "--bundle", ours.path, runrootless.new_id())
    cleared = ["env", "-i", *(f"{k}={v}" for k, v in env.items())]
    assert unprivileged.run([*cleared, *command]).check().stdout == "shadow\n"
