"""Messages that are received for another, which here is this process itself."""

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from socket import MSG_DONTWAIT, MSG_PEEK

import pytest

from runrootless.emulation.call import Call, Waits
from runrootless.emulation.callers.credential_table import CredentialTable
from runrootless.emulation.callers.credentials import initial
from runrootless.emulation.handlers import Shared
from runrootless.emulation.messages.receiving import Receiving
from runrootless.emulation.messages.senders import Sender, Senders
from runrootless.emulation.stores.owner_store import OwnerStore
from runrootless.linux import seccomp

HEADER = struct.Struct("=QI4xQQQQi4x")


class OwnCall(Call):
    """A call of this process, which is answered here."""

    value: int | None = 0
    descriptors: list[int]

    def is_valid(self) -> bool:
        return True

    def answer(self, value: int | None) -> bool:
        self.value = value
        return True

    def add_fd(self, fd: int, close_on_exec: int) -> int:
        self.descriptors.append(os.dup(fd))
        return self.descriptors[-1]


class InterruptedCall(OwnCall):
    """One that is interrupted at the last moment."""

    def answer(self, value: int | None) -> bool:
        return False


class Message:
    """Room for a message."""

    def __init__(self, size: int) -> None:
        self.data = ctypes.create_string_buffer(100)
        self.control = ctypes.create_string_buffer(100)
        self.vector = ctypes.create_string_buffer(
            struct.pack("QQ", ctypes.addressof(self.data), size)
        )
        vector, control = ctypes.addressof(self.vector), ctypes.addressof(self.control)
        self.header = ctypes.create_string_buffer(HEADER.pack(0, 0, vector, 1, control, 100, 0))
        self.address = ctypes.addressof(self.header)

    def ids(self) -> tuple[int, int]:
        uid, gid = struct.unpack("II", self.control.raw[20:28])
        return uid, gid


class Receiver:
    """What the agent is to this process, and the ends of a socket."""

    def __init__(self, kind: int) -> None:
        shared = Shared(CredentialTable(os.memfd_create("credentials")), OwnerStore())
        self.senders = Senders(shared.identity)
        self.receiving = Receiving(shared, self.senders)
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, kind)
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.senders.ask()
        # As a user's who has ended since.
        with open("/proc/self/status", "rb") as file:
            status = file.read()
        sender = Sender(shared.identity.of(os.getpid()), (5, 6), status)
        self.senders.note(os.getpid(), sender)

    def receive(
        self, message: Message, flags: int = MSG_DONTWAIT, kind: type[OwnCall] = OwnCall
    ) -> OwnCall:
        notification = bytearray(seccomp.NOTIFICATION_SIZE)
        arguments = (self.theirs.fileno(), message.address, flags, 0, 0, 0)
        seccomp.CALL.pack_into(notification, 0, os.getpid(), *arguments)
        call = kind(bytes(notification), -1)
        call.descriptors = []
        assert self.receiving.recvmsg(call) == Call.ANSWERED
        return call


@pytest.fixture(params=[socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["stream", "datagrams"])
def receiver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.chdir("/proc")
    before = set(os.listdir("self/fd"))
    receiver = Receiver(request.param)
    after = set(os.listdir("self/fd"))
    yield receiver
    assert set(os.listdir("self/fd")) - after <= before
    receiver.ours.close()
    receiver.theirs.close()


def test_the_ids_of_the_sender(receiver: Receiver) -> None:
    receiver.ours.send(b"one")
    message = Message(100)
    assert receiver.receive(message).value == 3
    assert (message.data.value, message.ids()) == (b"one", (5, 6))
    with pytest.raises(BlockingIOError):
        receiver.receive(message)


def test_kept_for_a_receiver_that_is_interrupted(receiver: Receiver) -> None:
    receiver.ours.send(b"one")
    receiver.receive(Message(100), kind=InterruptedCall)
    receiver.receive(Message(100), kind=InterruptedCall)
    receiver.ours.send(b"two")
    message = Message(100)
    receiver.receive(message, MSG_PEEK | MSG_DONTWAIT)
    assert (message.data.value, message.ids()) == (b"one", (5, 6))
    for expected in (b"one", b"two"):
        message = Message(100)
        assert receiver.receive(message).value == 3
        assert (message.data.value, message.ids()) == (expected, (5, 6))


def test_kept_for_one_with_less_room(receiver: Receiver) -> None:
    receiver.ours.send(b"onetwo")
    receiver.receive(Message(100), kind=InterruptedCall)
    message = Message(3)
    assert receiver.receive(message).value == 3
    assert message.data.value == b"one"
    receiver.ours.send(b"three")
    message = Message(100)
    receiver.receive(message)
    is_stream = receiver.ours.type == socket.SOCK_STREAM
    assert message.data.value == (b"two" if is_stream else b"three")
    if is_stream:
        receiver.receive(Message(100))


def test_descriptors_are_kept_as_well(receiver: Receiver) -> None:
    reader, writer = os.pipe()
    socket.send_fds(receiver.ours, [b"one"], [reader])
    for kind in (InterruptedCall, OwnCall):
        given = receiver.receive(Message(100), kind=kind).descriptors
        assert [os.path.sameopenfile(fd, reader) for fd in given] == [True]
        os.close(given[0])
    os.close(reader)
    # Nobody holds the other end any more.
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)


def test_a_call_that_waits(receiver: Receiver) -> None:
    message = Message(100)
    with pytest.raises(Waits) as raised:
        receiver.receive(message, 0)
    waits = raised.value
    assert waits.event.poll(0) == []
    with pytest.raises(Waits) as again:
        waits.retry()
    assert again.value.event is waits.event
    receiver.ours.send(b"one")
    assert waits.event.poll(0) != []
    assert waits.retry() == Call.ANSWERED
    assert message.data.value == b"one"
    waits.event.close()


def test_a_sender_that_has_changed(receiver: Receiver) -> None:
    with open("/proc/self/status", "rb") as file:
        receiver.senders.note(os.getpid(), Sender(initial(5, 6), (5, 6), file.read()))
    assert receiver.senders.ids(os.getpid()) == (0, 0)
