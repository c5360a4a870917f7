"""Containers under PRoot: as an engine of runc's, and alone on a host without user namespaces."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MakeBundle
from support.apk import File, make_apk
from support.bundles import Bundle
from support.containers import Runrootless
from support.mounts import unmount
from support.processes import eventually, processes, read_line
from support.programs import compile_program
from support.trees import Tree, Trees
from support.users import AS_ROOT, Account, Unprivileged
from support.without_namespaces import LIMIT, WithoutUserNamespaces

SLEEP = "echo up >/dev/shm/up; exec sleep 1000"
TRAP = "trap 'echo got it; exit 9' {}; echo up; while :; do sleep 0.05; done"


@pytest.fixture
def engine(runrootless: Runrootless) -> Runrootless:
    """PRoot as an engine, in a container of runc's."""
    return Runrootless(runrootless.user, ["--engine", "proot"])


@pytest.fixture
def alone(account: Account) -> Iterator[Runrootless]:
    """PRoot alone, because there are no user namespaces."""
    if not AS_ROOT:
        pytest.skip("making a host without user namespaces needs root")
    user = WithoutUserNamespaces(account)
    command = Runrootless(user)
    try:
        yield command
        command.assert_nothing_left()
    finally:
        user.close()


@pytest.fixture(params=["engine", "alone"])
def proot(request: pytest.FixtureRequest) -> Runrootless:
    """Both of them, one after the other."""
    command = request.getfixturevalue(request.param)
    assert isinstance(command, Runrootless)
    return command


class Detached:
    """A container in the background."""

    def __init__(self, command: Runrootless, bundle: Bundle, *verb: str) -> None:
        self.command = command
        self.id = command.new_id()
        self.pid_file = os.path.join(command.user.home, self.id)
        verb = verb or ("run", "--detach")
        command(*verb, "--bundle", bundle.path, "--pid-file", self.pid_file, self.id).check()
        with open(self.pid_file) as file:
            self.pid = int(file.read())

    def exec(self, *args: str, options: tuple[str, ...] = ()) -> str:
        return self.command("exec", *options, self.id, *args).check().stdout

    def state(self) -> dict[str, object]:
        state: dict[str, object] = json.loads(self.command("state", self.id).check().stdout)
        return state

    def wait_stopped(self) -> None:
        eventually(lambda: self.state()["status"] == "stopped", "the end of the container")

    def wait_up(self) -> None:
        script = "cat /dev/shm/up 2>/dev/null || true"
        eventually(lambda: self.exec("sh", "-c", script), "its command")

    def delete(self, *options: str) -> None:
        self.command("delete", *options, self.id).check()


@pytest.fixture
def detached(proot: Runrootless, bundle: MakeBundle) -> Detached:
    """A running container."""
    container = Detached(proot, bundle().script(SLEEP))
    container.wait_up()
    return container


CONTROL = """\
Package: kept
Version: 1.0
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: a file
"""


def test_there_are_no_user_namespaces(alone: Runrootless) -> None:
    """The tests of what happens then would pass for nothing else."""
    assert alone.user.run(["cat", LIMIT]).check().stdout == "0\n"
    refused = alone.user.run(["unshare", "--user", "true"])
    assert refused.returncode == 1 and "unshare failed" in refused.stderr
    assert alone.user.run(["id", "-u"]).check().stdout.strip() == str(alone.user.account.uid)
    with open(LIMIT) as file:
        assert int(file.read()) > 0


IDENTITY = """
id -u; id -g
stat -c '%u:%g' /etc/passwd
touch /srv/made && chown 33:33 /srv/made && chmod 4755 /srv/made; echo $?
mknod /srv/device c 1 3; echo $?
rm -f /srv/made /srv/device
pwd; echo "$HOME"
"""
ROOT = ["0", "0", "0:0", "0", "0", "/", "/root"]


def test_root_in_debian(proot: Runrootless, bundle: MakeBundle) -> None:
    done = proot.run(bundle().script(IDENTITY.replace("/srv", "/dev/shm"))).check()
    assert done.stdout.split() == ROOT


def test_root_in_alpine(proot: Runrootless, bundle: MakeBundle, alpine_tree: Tree) -> None:
    """Debian's PRoot needs its own loader and libraries in Alpine, which has another C library."""
    done = proot.run(bundle(alpine_tree, whole=True).script(IDENTITY)).check()
    assert done.stdout.split() == ROOT


def test_another_user(proot: Runrootless, bundle: MakeBundle, alpine_tree: Tree) -> None:
    script = "id -u; id -g; stat -c %u:%g /etc/passwd; touch /srv/x && chown 5:5 /srv/x || echo no"
    ours = bundle(alpine_tree, whole=True).script(script).set(user=(33, 34, ()), cwd="/var")
    assert proot.run(ours).check().stdout.split() == ["33", "34", "33:34", "no"]


def test_the_files_are_those_of_the_container(proot: Runrootless, bundle: MakeBundle) -> None:
    """PRoot 5.1 does not know statx(2), by which a program would see the host's files."""
    ours = bundle()
    inside = f"{ours.rootfs}/opt"
    assert os.stat(inside).st_ino != os.stat("/opt").st_ino
    done = proot.run(ours.script("stat -c %i /opt; ls -di /opt")).check()
    assert done.stdout.split()[0] == done.stdout.split()[1] == str(os.stat(inside).st_ino)
    refused = proot.run(ours.script(f"stat {inside}")).check(1)
    assert "No such file" in refused.stderr


def test_bind_mounts(proot: Runrootless, bundle: MakeBundle) -> None:
    ours = bundle()
    os.mkdir(f"{ours.path}/shared", 0o755)
    proot.user.give(f"{ours.path}/shared")

    def add(config: dict[str, object]) -> None:
        mounts = config["mounts"]
        assert isinstance(mounts, list)
        mounts.append(
            {"destination": "/opt/in", "type": "bind", "source": "shared", "options": ["rbind"]}
        )

    ours.change(add).script("echo kept >/opt/in/file; cat /opt/in/file")
    assert proot.run(ours).check().stdout == "kept\n"
    with open(f"{ours.path}/shared/file") as file:
        assert file.read() == "kept\n"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 42", 42), ("sh -c 'kill -9 $$'; exit $?", 137)]
)
def test_exit_codes(script: str, code: int, proot: Runrootless, bundle: MakeBundle) -> None:
    proot.run(bundle().script(script)).check(code)


def test_a_command_that_ends_by_a_signal(proot: Runrootless, bundle: MakeBundle) -> None:
    """PRoot has its own exit code for that, and tells the signal."""
    done = proot.run(bundle().script("kill -9 $$")).check(255)
    assert "terminated with signal 9" in done.stderr


def test_a_command_that_does_not_exist(proot: Runrootless, bundle: MakeBundle) -> None:
    failed = proot.run(bundle().set(["no-such-command"])).check(1)
    assert "no-such-command" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_standard_streams(proot: Runrootless, bundle: MakeBundle) -> None:
    done = proot.run(bundle().script("cat; echo error >&2"), input="some\ninput\n").check()
    assert done.stdout == "some\ninput\n"
    assert done.stderr.splitlines()[-1] == "error"


# One that ends at once may be missed, as docs/proot.md says.
@pytest.mark.parametrize(
    "script", ["sleep 1000 & sleep 2; exit 5", "(sleep 1000 &); sleep 2; exit 5"]
)
def test_what_the_command_leaves_is_killed(
    script: str, proot: Runrootless, bundle: MakeBundle
) -> None:
    proot.run(bundle().script(script), timeout=60).check(5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_in_the_foreground(
    number: signal.Signals, proot: Runrootless, bundle: MakeBundle
) -> None:
    ours = bundle().script(TRAP.format(number.name[3:]))
    process = proot.user.start(proot.command("run", "--bundle", ours.path, proot.new_id()))
    assert read_line(process) == "up\n"
    process.send_signal(number)
    assert read_line(process) == "got it\n"
    assert process.wait(60) == 9
    process.communicate(timeout=60)


def test_terminal(proot: Runrootless, bundle: MakeBundle) -> None:
    ours = bundle().set(["bash", "--norc", "--noediting"], env={"PS1": "ready> "}, terminal=True)
    terminal = proot.terminal(ours, rows=31, columns=101)
    terminal.expect("ready> ")
    assert "no job control" not in terminal.output
    terminal.send("stty size; test -t 0 && echo a term''inal\n")
    terminal.expect("31 101")
    terminal.expect("a terminal")
    terminal.expect("ready> ")
    terminal.send("cat\n")
    terminal.send("typed\n")
    terminal.expect("typed\r\ntyped\r\n")
    terminal.send("\x03")
    terminal.expect("ready> ")
    terminal.resize(42, 77)
    eventually(
        lambda: "42 77" in terminal.answer("stty size", "ready> "), "the new size of the window"
    )
    terminal.send("exit 23\n")
    assert terminal.wait() == 23
    assert terminal.attributes() == terminal.initial_attributes
    terminal.close()


def test_the_life_of_a_container(detached: Detached) -> None:
    state = detached.state()
    assert (state["id"], state["pid"], state["status"]) == (detached.id, detached.pid, "running")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", str(state["created"]))
    listed = detached.command("list").check().stdout
    assert re.search(rf"^{detached.id}\s+{detached.pid}\s+running\s", listed, re.MULTILINE)
    assert detached.command("list", "--quiet").check().stdout == f"{detached.id}\n"
    refused = detached.command("delete", detached.id).check(1)
    assert "not stopped" in refused.stderr
    again = detached.command("run", "--bundle", str(state["bundle"]), detached.id).check(1)
    assert "already exists" in again.stderr or "exist" in again.stderr
    detached.command("kill", detached.id, "TERM").check()
    detached.wait_stopped()
    assert detached.state()["pid"] == 0
    assert detached.command("exec", detached.id, "true").returncode == 255
    detached.command("kill", detached.id, "TERM").check(1)
    detached.delete()
    gone = detached.command("state", detached.id).check(1)
    assert "does not exist" in gone.stderr


def test_ps(alone: Runrootless, bundle: MakeBundle) -> None:
    container = Detached(alone, bundle().script(SLEEP))
    container.wait_up()
    pids = json.loads(alone("ps", "--format", "json", container.id).check().stdout)
    assert container.pid in pids and len(pids) == 2
    shown = alone("ps", container.id).check().stdout
    assert "sleep 1000" in shown
    assert len(shown.splitlines()) == 3
    container.delete("--force")


def test_delete_by_force(detached: Detached) -> None:
    detached.delete("--force")
    assert detached.pid not in [process.pid for process in processes()]
    assert "does not exist" in detached.command("state", detached.id).check(1).stderr


def test_init_killed_from_outside(detached: Detached) -> None:
    os.kill(detached.pid, signal.SIGKILL)
    detached.wait_stopped()
    detached.delete()


def test_exec(detached: Detached) -> None:
    script = "id -u; stat -c %u /etc/passwd; chown 5:5 /dev/shm/up; echo $?; pwd"
    assert detached.exec("sh", "-c", script).split() == ["0", "0", "0", "/"]
    other = detached.exec("sh", "-c", "id -u; id -g; pwd", options=("-u", "33:34", "--cwd", "/srv"))
    assert other.split() == ["33", "34", "/srv"]
    named = detached.exec("id", "-un", options=("--user", "www-data", "-e", "A=b"))
    assert named == "www-data\n"
    assert detached.exec("printenv", "A", options=("--env", "A=b c")) == "b c\n"
    assert detached.command("exec", detached.id, "sh", "-c", "exit 7").returncode == 7
    typed = detached.command("exec", detached.id, "cat", input="typed\n").check()
    assert typed.stdout == "typed\n"
    detached.delete("--force")


def test_exec_of_a_process_file(detached: Detached) -> None:
    path = f"{detached.command.user.home}/process.json"
    process = {
        "args": ["sh", "-c", "id -u; pwd; echo $A"],
        "cwd": "/etc",
        "env": ["PATH=/usr/bin:/bin", "A=b"],
        "user": {"uid": 5, "gid": 6},
    }
    with open(path, "w") as file:
        json.dump(process, file)
    done = detached.command("exec", "--process", path, detached.id).check()
    assert done.stdout.split() == ["5", "/etc", "b"]
    detached.delete("--force")


def test_exec_gets_signals_and_ends_with_the_container(detached: Detached) -> None:
    def start(script: str) -> "subprocess.Popen[str]":
        words = detached.command.command("exec", detached.id, "sh", "-c", script)
        process = detached.command.user.start(words)
        assert read_line(process) == "up\n"
        return process

    process = start(TRAP.format("TERM"))
    process.send_signal(signal.SIGTERM)
    assert read_line(process) == "got it\n"
    assert process.wait(60) == 9
    process.communicate(timeout=60)
    process = start("echo up; exec sleep 1000")
    detached.command("kill", detached.id, "KILL").check()
    assert process.wait(60) != 0
    process.communicate(timeout=60)
    detached.wait_stopped()
    detached.delete()


def test_create_and_start(proot: Runrootless, bundle: MakeBundle, alpine_tree: Tree) -> None:
    ours = bundle(alpine_tree, whole=True).script("echo seen >/srv/seen")
    created = Detached(proot, ours, "create")
    assert created.state()["status"] == "created"
    assert not os.path.exists(f"{ours.rootfs}/srv/seen")
    proot("start", created.id).check()
    created.wait_stopped()
    with open(f"{ours.rootfs}/srv/seen") as file:
        assert file.read() == "seen\n"
    proot("start", created.id).check(1)
    created.delete()
    never_started = Detached(proot, ours, "create")
    never_started.delete("--force")


# Of what goes wrong under other kinds of made-up root: apt's own user, owners, a user made.
INSTALL = """
{command} >/tmp/log 2>&1 || cat /tmp/log
grep -E '^(W|E):' /tmp/log
dpkg --audit
"""
POST_INSTALL = """#!/bin/sh -e
groupadd --system keepers
useradd --system --gid keepers keeper
chown keeper:keepers /srv/kept
"""


@pytest.fixture(scope="module")
def debian_rootfs(debian_tree: Tree, trees: Trees) -> Iterator[str]:
    """A copy of Debian to install things in."""
    directory = trees.new_directory("installed", for_user=True)
    yield trees.copy(debian_tree.rootless, f"{directory}/rootfs")
    trees.discard(directory)


def test_apt_install_from_the_mirror(
    engine: Runrootless, bundle: MakeBundle, debian_rootfs: str
) -> None:
    command = "(apt-get update && apt-get install --yes cowsay)"
    ours = bundle().change(lambda config: config["root"].update(path=debian_rootfs))
    ours.script(INSTALL.format(command=command) + "/usr/games/cowsay hello")
    lines = engine.run(ours, timeout=900).check().stdout.splitlines()
    assert lines[1] == "< hello >", lines
    assert not [line for line in lines if line.startswith(("W:", "E:"))]


def test_apt_install_of_a_file(
    proot: Runrootless, bundle: MakeBundle, debian_rootfs: str, tmp_path: Path
) -> None:
    """Twice, the second time over what is there already."""
    for name, content, mode in (
        ("DEBIAN/control", CONTROL, 0o644),
        ("DEBIAN/postinst", POST_INSTALL, 0o755),
        ("srv/kept", "kept\n", 0o2640),
    ):
        path = tmp_path / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
    package = f"{debian_rootfs}/tmp/kept.deb"
    build = ["dpkg-deb", "--root-owner-group", "--build", str(tmp_path / "package"), package]
    subprocess.run(build, check=True, capture_output=True)
    command = "apt-get install --yes --reinstall /tmp/kept.deb"
    ours = bundle().change(lambda config: config["root"].update(path=debian_rootfs))
    ours.script(
        # By force: where there is no pid namespace, its number may be that of the tests' user.
        "userdel --force keeper 2>/dev/null; groupdel keepers 2>/dev/null;"
        + INSTALL.format(command=command)
        + "cat /srv/kept; stat -c %a /srv/kept; dpkg-query -W kept"
    )
    done = proot.run(ours).check()
    assert done.stdout.split() == ["kept", "2640", "kept", "1.0"], done.stdout


def test_apk_add(proot: Runrootless, bundle: MakeBundle, alpine_tree: Tree) -> None:
    package = make_apk(
        "served",
        {"srv/file": File(b"served\n", 0o640, "mail", "mail")},
        "#!/bin/sh\nadduser -S -D -H served && chown served:nogroup /srv/file\n",
    )
    ours = bundle(alpine_tree, whole=True).script(
        "apk add --quiet --allow-untrusted --no-network /tmp/served.apk &&"
        " cat /srv/file && stat -c %a /srv/file && id -u served"
    )
    with open(f"{ours.rootfs}/tmp/served.apk", "wb") as file:
        file.write(package)
    assert proot.run(ours).check().stdout.split() == ["served", "640", "100"]


def test_the_engine_binds_what_proot_needs(engine: Runrootless, bundle: MakeBundle) -> None:
    script = (
        "echo $PROOT_TMP_DIR $PROOT_NO_SECCOMP; ls /dev/proot /dev/proot/lib;"
        " grep -c '/dev/proot/.* ro,' /proc/self/mounts; grep ' /dev/proot tmpfs' /proc/mounts"
    )
    shown = engine.run(bundle().script(script)).check().stdout
    assert shown.startswith("/dev/proot 1\n")
    for name in ("proot", "loader", "libc.so.6", "libtalloc.so.2"):
        assert f"{name}\n" in shown
    assert "\n4\n" in shown
    assert " /dev/proot tmpfs rw" in shown


def test_proot_with_its_own_filter(proot: Runrootless, bundle: MakeBundle) -> None:
    ours = bundle().script("echo x${PROOT_NO_SECCOMP}x; id -u; stat -c %u /etc/passwd")
    done = proot(
        "run", "--bundle", ours.path, proot.new_id(), env={"RUNROOTLESS_SECCOMP": "1"}
    ).check()
    assert done.stdout.split() == ["xx", "0", "0"]


PRINTS_ITS_ARGUMENTS = """
#include <stdio.h>
int main(int argc, char **argv) {
    for (int i = 0; i < argc; i++) puts(argv[i]);
    return 4;
}
"""


def test_a_static_proot_of_the_callers(
    engine: Runrootless, bundle: MakeBundle, alpine_tree: Tree, unprivileged: Unprivileged
) -> None:
    path = compile_program(PRINTS_ITS_ARGUMENTS, f"{unprivileged.home}/mine", ["-static"])
    ours = bundle(alpine_tree).set(["echo", "x"], user=(7, 8, ()))
    env = {"RUNROOTLESS_PROOT": path}
    done = engine("run", "--bundle", ours.path, engine.new_id(), env=env).check(4)
    assert done.stdout.split() == ["/dev/proot/proot", "-i", "7:8", "echo", "x"]
    missing = {"RUNROOTLESS_PROOT": "/none"}
    failed = engine("run", "--bundle", ours.path, engine.new_id(), env=missing).check(1)
    assert "RUNROOTLESS_PROOT=/none" in failed.stderr


# As the profile of a container in which this one is to run.
REFUSED = """
import os, sys
from runrootless.emulation.seccomp_filter import build
from runrootless.linux import process, seccomp
process.set_no_new_privileges()
seccomp.install(build(os.uname().machine, seccomp.RETURN_ERRNO | 1, [("unshare", "", None)]), 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_seccomp_filter_that_refuses_user_namespaces(
    runrootless: Runrootless, bundle: MakeBundle
) -> None:
    words = runrootless.command("run", "--bundle", bundle().script("id -u").path, "refused")
    done = runrootless.user.run([sys.executable, "-c", REFUSED, *words]).check()
    assert done.stdout == "0\n"
    assert "there are no user namespaces (the kernel refuses them" in done.stderr


def test_a_private_directory_from_which_nothing_can_be_executed(
    alone: Runrootless, bundle: MakeBundle
) -> None:
    """PRoot has to execute a file of its own."""
    ours = bundle().script("id -u; echo $PROOT_TMP_DIR")
    options = f"noexec,mode=700,uid={alone.user.account.uid},gid={alone.user.account.gid}"
    place = alone.user.runtime_dir
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        root, temporary = alone.run(ours).check().stdout.split()
        alone.assert_nothing_left()
    finally:
        unmount(place)
    assert root == "0"
    data = f"{alone.user.home}/.local/share/runrootless"
    assert os.path.dirname(temporary) == data
    assert os.listdir(data) == []


def test_what_cannot_be_had_is_said_once(alone: Runrootless, bundle: MakeBundle) -> None:
    ours = bundle().script("exit 3")
    done = alone.run(ours).check(3)
    assert done.stderr.count("level=warning") == 1
    assert f"{LIMIT} is 0" in done.stderr
    assert "without namespaces, cgroups" in done.stderr
    log = f"{alone.user.home}/log"
    options = ["--log", log, "--log-format", "json"]
    Runrootless(alone.user, options).run(ours).check(3)
    with open(log) as file:
        (entry,) = [json.loads(line) for line in file]
    assert entry["level"] == "warning"


def test_an_engine_that_needs_user_namespaces(alone: Runrootless, bundle: MakeBundle) -> None:
    notify = Runrootless(alone.user, ["--engine", "notify"])
    failed = notify.run(bundle().script("exit 0")).check(1)
    assert "--engine proot" in failed.stderr


WITHOUT_RUNTIMES = """
import sys
from runrootless import cli, runtimes
runtimes.KNOWN = ("no-such-runtime",)
sys.exit(cli.main(sys.argv[1:]))
"""


def test_no_runtime_is_needed_where_none_could_start(
    alone: Runrootless, unprivileged: Unprivileged, bundle: MakeBundle
) -> None:
    ours = bundle().script("echo $((40 + 2)); exit 3")
    args = [sys.executable, "-c", WITHOUT_RUNTIMES, "run", "--bundle", ours.path, "carried"]
    assert alone.user.run(args).check(3).stdout == "42\n"
    needed = unprivileged.run(args).check(1)
    assert "no OCI runtime found" in needed.stderr
    assert alone.user.run([*args[:3], "state", "none"]).check(1).stderr.count("\n") == 1


def test_what_proot_alone_cannot_do(alone: Runrootless, bundle: MakeBundle) -> None:
    container = Detached(alone, bundle().script(SLEEP))
    for command in ("pause", "resume", "update", "events"):
        failed = alone(command, container.id).check(1)
        assert f"{command} cannot be had" in failed.stderr
    container.delete("--force")


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"type": "bind", "source": "none", "options": ["bind"]}, "none of the mount"),
        ({"type": "overlay", "source": "overlay"}, "type overlay"),
        ({"type": "bind", "source": "/etc", "options": ["bind"], "destination": "/a:b"}, "colon"),
    ],
)
def test_a_mount_that_cannot_be(
    mount: dict[str, object], message: str, alone: Runrootless, bundle: MakeBundle
) -> None:
    def add(config: dict[str, object]) -> None:
        mounts = config["mounts"]
        assert isinstance(mounts, list)
        mounts.append({"destination": "/opt", **mount})

    failed = alone.run(bundle().change(add).script("exit 0")).check(1)
    assert message in failed.stderr
    assert alone("list", "--quiet").check().stdout == ""


def test_console_socket(alone: Runrootless, bundle: MakeBundle) -> None:
    path = f"{alone.user.session}/console"
    ours = bundle().set(["sh", "-c", "stty size; cat"], terminal=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        alone.user.give(path)
        server.listen()
        name = alone.new_id()
        alone("run", "-d", "--console-socket", path, "--bundle", ours.path, name).check()
        connection, _ = server.accept()
        with connection:
            _, (master,), _, _ = socket.recv_fds(connection, 4096, 1)
    with open(master, "r+b", buffering=0) as terminal:
        terminal.write(b"typed\n")
        shown = b""
        while shown.count(b"typed") < 2:
            shown += terminal.read(1000)
    assert b"0 0" in shown
    alone("delete", "--force", name).check()
    refused = alone("run", "-d", "--bundle", ours.path, alone.new_id()).check(1)
    assert "console socket" in refused.stderr


def test_nothing_is_left_of_a_tmpfs(alone: Runrootless, bundle: MakeBundle) -> None:
    """Nor of an attempt that was broken off."""
    name = alone.new_id()
    ours = bundle().script("mkdir -p /dev/shm/a/b; touch /dev/shm/a/b/c; chmod 0 /dev/shm/a")
    alone("run", "--bundle", ours.path, name).check()
    alone.assert_nothing_left()
    alone("run", "--keep", "--bundle", ours.path, name).check()
    (state,) = Path(alone.user.runtime_dir).rglob("state.json")
    state.unlink()
    alone("run", "--bundle", ours.path, name).check(1)
    os.utime(state.parent, (0, 0))
    alone("run", "--bundle", ours.path, name).check()


def test_the_supervisor_killed(alone: Runrootless, bundle: MakeBundle) -> None:
    """What it supervises ends with it, and the container has stopped."""
    container = Detached(alone, bundle().script(SLEEP))
    with open(f"/proc/{container.pid}/stat") as file:
        supervisor = int(file.read().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    container.wait_stopped()
    eventually(
        lambda: container.pid not in [process.pid for process in processes()], "the end of PRoot"
    )
    container.delete()
