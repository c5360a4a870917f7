"""Messages on the listener socket, in whatever pieces and shapes they come."""

import json
import os
import socket
from collections.abc import Iterator

import pytest

from runrootless.agent.listener import Connection
from runrootless.errors import Error

STATE = {
    "ociVersion": "1.0.2",
    "fds": ["seccompFd"],
    "pid": 42,
    "metadata": "",
    "state": {"id": "x", "status": "running", "bundle": "/b"},
}
MESSAGE = json.dumps(STATE).encode()


class Ends:
    """Both ends of a connection, and a descriptor to send."""

    def __init__(self) -> None:
        self.runtime, ours = socket.socketpair()
        self.connection = Connection(ours.detach())
        self.fd = os.memfd_create("listener")

    def send(self, data: bytes, fds: int = 0) -> None:
        socket.send_fds(self.runtime, [data], [self.fd] * fds)


@pytest.fixture
def ends() -> Iterator[Ends]:
    before = set(os.listdir("/proc/self/fd"))
    ends = Ends()
    yield ends
    ends.runtime.close()
    ends.connection.close()
    os.close(ends.fd)
    assert set(os.listdir("/proc/self/fd")) <= before


def test_one_message(ends: Ends) -> None:
    ends.send(MESSAGE, 1)
    handover = ends.connection.receive()
    assert handover is not None
    assert handover.pid == 42
    assert os.path.sameopenfile(handover.fd, ends.fd)
    os.close(handover.fd)


@pytest.mark.parametrize("cut", range(1, len(MESSAGE), 7))
def test_a_message_in_two_pieces(ends: Ends, cut: int) -> None:
    ends.send(MESSAGE[:cut], 1)
    assert ends.connection.receive() is None
    ends.send(MESSAGE[cut:])
    handover = ends.connection.receive()
    assert handover is not None
    os.close(handover.fd)


def test_nothing_yet(ends: Ends) -> None:
    assert ends.connection.receive() is None


def test_the_descriptor_is_found_by_its_name(ends: Ends) -> None:
    other = os.memfd_create("other")
    names = ["something", "seccompFd"]
    message = json.dumps({**STATE, "fds": names}).encode()
    socket.send_fds(ends.runtime, [message], [other, ends.fd])
    os.close(other)
    handover = ends.connection.receive()
    assert handover is not None
    assert os.path.sameopenfile(handover.fd, ends.fd)
    os.close(handover.fd)


@pytest.mark.parametrize(
    ("data", "fds"),
    [
        (b"[]}", 1),
        (b"nonsense}", 1),
        (b'{"fds": ["seccompFd"]}', 1),
        (b'{"fds": "seccompFd", "pid": 1}', 1),
        (b'{"fds": ["seccompFd"], "pid": "1"}', 1),
        (b'{"fds": ["other"], "pid": 1}', 1),
        # A descriptor is promised, and none comes.
        (MESSAGE, 0),
        (b"\xff\xfe}", 1),
        (b"[" * 5000 + b"}", 1),
        (MESSAGE[:-1], 1),
        (b"", 0),
    ],
)
def test_what_is_no_message_ends_in_an_error(ends: Ends, data: bytes, fds: int) -> None:
    if data:
        ends.send(data, fds)
    ends.runtime.shutdown(socket.SHUT_WR)
    with pytest.raises(Error):
        for _ in range(3):
            assert ends.connection.receive() is None


def test_no_end_of_descriptors(ends: Ends) -> None:
    with pytest.raises(Error):
        for _ in range(5):
            ends.send(b"{", 3)
            ends.connection.receive()


def test_no_end_of_data(ends: Ends) -> None:
    with pytest.raises(Error):
        for _ in range(100):
            ends.send(b" " * 50_000)
            ends.connection.receive()
