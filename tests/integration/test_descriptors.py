"""Descriptors that a caller passes to the container, and those that come back from it."""

import array
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MakeBundle, both_runtimes
from support.bundles import Bundle
from support.containers import Runrootless
from support.processes import eventually

pytestmark = both_runtimes

SLEEP = "while :; do sleep 0.05; done"
# What a shell does before it executes the command: two open files.
OPENED = 'exec 3<"$0/three" 4<"$0/four"; exec "$@"'
READ = "cat <&3; cat <&4; if (: <&5) 2>/dev/null; then echo a fifth; fi"


@pytest.fixture
def files(runrootless: Runrootless) -> str:
    """A directory with two files to pass on."""
    for name in ("three", "four"):
        path = os.path.join(runrootless.user.session, name)
        with open(path, "w") as file:
            file.write(name + "\n")
    return runrootless.user.session


def opened(files: str, command: list[str]) -> list[str]:
    return ["sh", "-c", OPENED, files, *command]


@pytest.fixture
def running(bundle: MakeBundle, runrootless: Runrootless) -> Iterator[str]:
    """The ID of a running container."""
    name = runrootless.new_id()
    ours = bundle().script(SLEEP)
    runrootless("run", "--detach", "--bundle", ours.path, name).check()
    yield name
    runrootless("delete", "--force", name).check()


def test_preserved_by_run(bundle: MakeBundle, runrootless: Runrootless, files: str) -> None:
    ours = bundle().script(READ)
    args = ["run", "--preserve-fds", "2", "--bundle", ours.path, runrootless.new_id()]
    done = runrootless.user.run(opened(files, runrootless.command(*args)))
    assert done.check().stdout == "three\nfour\n"


@pytest.mark.parametrize("user", ["0:0", "33:33"])
def test_preserved_by_exec(runrootless: Runrootless, files: str, running: str, user: str) -> None:
    args = ["exec", "--preserve-fds", "2", "--user", user, running, "sh", "-c", f"{READ}; id -u"]
    done = runrootless.user.run(opened(files, runrootless.command(*args)))
    assert done.check().stdout == f"three\nfour\n{user.split(':')[0]}\n"


@pytest.mark.parametrize("count", ["-1", "-3"])
def test_fewer_than_none(
    bundle: MakeBundle, runrootless: Runrootless, running: str, count: str
) -> None:
    """As none, and no launcher in the place of a standard stream."""
    script = "chown 3:4 /dev/shm && cat && stat -c %u:%g /dev/shm"
    ours = bundle().script(script)
    words = ["run", f"--preserve-fds={count}", "--bundle", ours.path, runrootless.new_id()]
    assert runrootless(*words, input="typed\n").check().stdout == "typed\n3:4\n"
    words = ["exec", f"--preserve-fds={count}", running, "sh", "-c", script]
    assert runrootless(*words, input="typed\n").check().stdout == "typed\n3:4\n"


def test_of_socket_activation(
    bundle: MakeBundle, runrootless: Runrootless, files: str, runtime: str
) -> None:
    """LISTEN_FDS of sd_listen_fds(3): so many descriptors from 3 on, for LISTEN_PID."""
    ours = bundle().script(f"{READ}; echo $LISTEN_FDS $LISTEN_PID")
    command = runrootless.command("run", "--bundle", ours.path, runrootless.new_id())
    # The process ID must stay the same until the runtime looks at it.
    activated = ["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=2 exec "$@"', "sh", *command]
    done = runrootless.user.run(opened(files, activated))
    # crun 1.8 passes the descriptors without LISTEN_FDS.
    variables = "2 1" if runtime == "runc" else "1"
    assert done.check().stdout == f"three\nfour\n{variables}\n"


def test_none_of_ours_gets_in(bundle: MakeBundle, runrootless: Runrootless, running: str) -> None:
    script = "ls /proc/self/fd | wc -l"
    # Three, and the one that ls reads.
    assert runrootless.run(bundle().script(script)).check().stdout == "4\n"
    done = runrootless("exec", "--user", "33:33", running, "sh", "-c", script)
    assert done.check().stdout == "4\n"


class Console:
    """A socket on which a runtime hands over the master of a container's terminal."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        os.chmod(path, 0o777)
        self._socket.listen()
        self._socket.settimeout(20)

    def master(self) -> int:
        connection, _ = self._socket.accept()
        with connection:
            size = array.array("i").itemsize
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(size))
        ((level, kind, data),) = ancillary
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        (fd,) = array.array("i", data[:size])
        return fd

    def close(self) -> None:
        self._socket.close()


def read_until(master: int, text: str) -> None:
    seen = b""

    def more() -> bool:
        nonlocal seen
        seen += os.read(master, 4096)
        return text.encode() in seen

    eventually(more, lambda: f"{text!r} in {seen!r}")


@pytest.fixture
def console(runrootless: Runrootless) -> Iterator[Console]:
    console = Console(os.path.join(runrootless.user.session, "console"))
    yield console
    console.close()


def interactive(bundle: Bundle) -> Bundle:
    return bundle.set(["sh", "-c", "tty; stat -c %G /etc/shadow; read x; exit 7"], terminal=True)


def test_console_socket_of_create(
    bundle: MakeBundle, runrootless: Runrootless, console: Console
) -> None:
    name = runrootless.new_id()
    ours = interactive(bundle())
    runrootless("create", "--console-socket", console.path, "--bundle", ours.path, name).check()
    master = console.master()
    runrootless("start", name).check()
    read_until(master, "/dev/pts/0\r\nshadow")
    os.write(master, b"\n")
    eventually(lambda: '"stopped"' in runrootless("state", name).stdout, "the end of the container")
    os.close(master)
    runrootless("delete", name).check()


def test_console_socket_by_a_path_from_the_bundle(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    """Where the runtimes look for it."""
    name = runrootless.new_id()
    ours = interactive(bundle())
    console = Console(os.path.join(ours.path, "sock"))
    runrootless("create", "--console-socket", "sock", "--bundle", ours.path, name).check()
    os.close(console.master())
    console.close()
    runrootless("delete", "--force", name).check()


def test_console_socket_of_exec(runrootless: Runrootless, running: str, console: Console) -> None:
    args = ["exec", "--detach", "--tty", "--console-socket", console.path, "--user", "33:33"]
    script = "tty; id -un; read x"
    runrootless(*args, running, "sh", "-c", script).check()
    master = console.master()
    read_until(master, "www-data")
    os.close(master)


def test_pid_files(runrootless: Runrootless, running: str) -> None:
    """Of exec: a path from the caller's directory on, where runc takes it from."""
    args = ["exec", "--detach", "--user", "33:33", "--pid-file", "pid", running, "sleep", "1000"]
    runrootless(*args).check()
    with open(os.path.join(runrootless.user.home, "pid")) as file:
        pid = int(file.read())
    # The runtime has gone before the launcher has.
    words = Path(f"/proc/{pid}/cmdline")
    eventually(lambda: words.read_text() == "sleep\x001000\0", lambda: words.read_text())
