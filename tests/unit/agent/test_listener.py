"""Launchers that hand over their listener, and what else may come on the socket."""

import os
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from runrootless.agent.listener import Connection
from runrootless.errors import Error
from runrootless.linux import bpf, seccomp
from runrootless.linux.process import set_no_new_privileges

Write = Callable[[socket.socket], None]


class Ends:
    """Both ends of a connection, and a process that has one of them."""

    def __init__(self) -> None:
        self.launcher, ours = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.connection = Connection(ours.detach())
        self.pid = 0

    def start(self, write: Write) -> int:
        """Let a process write something and wait for an answer; return its process ID."""
        begun, begins = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.connection.close()
                write(self.launcher)
                os.write(begins, b"x")
                os._exit(0 if self.launcher.recv(1) == b"\1" else 1)
            except ConnectionResetError:
                os._exit(1)
            finally:
                os._exit(2)
        self.launcher.close()
        os.close(begins)
        assert os.read(begun, 1) == b"x"
        os.close(begun)
        return self.pid

    def code(self) -> int:
        """Return the exit code of the process."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def ends() -> Iterator[Ends]:
    before = set(os.listdir("/proc/self/fd"))
    ends = Ends()
    yield ends
    ends.launcher.close()
    ends.connection.close()
    if ends.pid:
        ends.code()
    assert set(os.listdir("/proc/self/fd")) <= before


def number(value: int) -> Write:
    def write(to: socket.socket) -> None:
        to.send(struct.pack("=i", value))

    return write


def listener(to: socket.socket) -> None:
    set_no_new_privileges()
    found = seccomp.install(bpf.finish(seccomp.RETURN_ALLOW), seccomp.FILTER_NEW_LISTENER)
    to.send(struct.pack("=i", found))


def test_a_launcher(ends: Ends) -> None:
    pid = ends.start(listener)
    handover = ends.connection.receive()
    assert handover is not None
    assert handover.pid == pid
    assert os.readlink(f"/proc/self/fd/{handover.fd}") == "anon_inode:seccomp notify"
    assert not os.get_inheritable(handover.fd)
    os.close(handover.fd)
    ends.connection.thank()
    assert ends.code() == 0


def test_one_whose_listener_is_not_taken(ends: Ends) -> None:
    ends.start(listener)
    ends.connection.close()
    assert ends.code() == 1


def test_nothing_yet(ends: Ends) -> None:
    with pytest.raises(BlockingIOError):
        ends.connection.receive()


def test_nobody_will(ends: Ends) -> None:
    ends.launcher.close()
    assert ends.connection.receive() is None


@pytest.mark.parametrize("value", [0, 2, -1, 1 << 20, -(1 << 31), (1 << 31) - 1])
def test_what_is_no_listener(ends: Ends, value: int) -> None:
    ends.start(number(value))
    with pytest.raises((Error, OSError)):
        ends.connection.receive()


@pytest.mark.parametrize("data", [b"x", b"xyz"])
def test_what_is_no_number(ends: Ends, data: bytes) -> None:
    def write(to: socket.socket) -> None:
        to.send(data)

    ends.start(write)
    with pytest.raises(Error):
        ends.connection.receive()
