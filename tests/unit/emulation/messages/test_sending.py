"""Any control data in a message: accepted or refused as the kernel does, for its own root."""

import array
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runrootless.emulation.call import Call
from runrootless.emulation.callers.credential_table import CredentialTable
from runrootless.emulation.callers.credentials import Credentials, initial
from runrootless.emulation.callers.identity import Identity
from runrootless.emulation.handlers import Shared
from runrootless.emulation.messages.senders import Sender, Senders
from runrootless.emulation.messages.sending import Sending
from runrootless.emulation.stores.owner_store import OwnerStore
from runrootless.linux import seccomp
from runrootless.linux.processes import read_status

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="states IDs as only root may")

LIBC = ctypes.CDLL(None, use_errno=True)
HEADER = struct.Struct("=QI4xQQQQi4x")

LEVEL = st.sampled_from((socket.SOL_SOCKET, 0, 41))
KIND = st.sampled_from((socket.SCM_RIGHTS, socket.SCM_CREDENTIALS, 3, 99))
PID = st.sampled_from((os.getpid(), 1, 0, -1, 2**31 - 1))
ID = st.sampled_from((0, 5, 2**31, 2**32 - 2, 2**32 - 1))
UCRED = st.builds(lambda *ids: struct.pack("iII", *ids), PID, ID, ID)
RIGHTS = st.lists(st.sampled_from((0, 1, -1, 9999))).map(lambda fds: array.array("i", fds))
DATA = st.one_of(UCRED, UCRED, RIGHTS.map(bytes), st.binary(max_size=20))
LENGTH = st.sampled_from((0, 0, 0, 0, 1, -1, -4, 2**20, 2**63))
PART = st.builds(
    lambda level, kind, data, wrong: (
        struct.pack("Qii", (16 + len(data) + wrong) % 2**64, level, kind)
        + data.ljust(-(-len(data) // 8) * 8, b"\xee")
    ),
    LEVEL,
    KIND,
    DATA,
    LENGTH,
)
CONTROL = st.one_of(st.lists(PART, max_size=4).map(b"".join), st.binary(max_size=100))


class ValidCall(Call):
    def is_valid(self) -> bool:
        return True


class Caller:
    """This process, as one that is emulated."""

    def __init__(self) -> None:
        shared = Shared(CredentialTable(os.memfd_create("credentials")), OwnerStore())
        self.senders = Senders(shared.identity)
        self.sending = Sending(shared, self.senders)

    def call(self, *arguments: int) -> Call:
        registers = [*arguments, *[0] * (6 - len(arguments))]
        notification = bytearray(seccomp.NOTIFICATION_SIZE)
        seccomp.CALL.pack_into(notification, 0, os.getpid(), *registers)
        return ValidCall(bytes(notification), -1)


class Message:
    """A message in memory, to be sent by the kernel."""

    def __init__(self, control: bytes, size: int | None = None) -> None:
        self.control = ctypes.create_string_buffer(control, len(control) + 1)
        self.data = ctypes.create_string_buffer(b"x")
        self.vector = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(self.data), 1))
        size = len(control) if size is None else size
        address = ctypes.addressof(self.control)
        packed = HEADER.pack(0, 0, ctypes.addressof(self.vector), 1, address, size, 0)
        self.header = ctypes.create_string_buffer(packed)
        self.address = ctypes.addressof(self.header)

    def is_sent(self) -> bool:
        first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with first, second:
            return int(LIBC.sendmsg(first.fileno(), self.header, 0)) == 1


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    before = os.getcwd()
    os.chdir("/proc")
    yield Caller()
    os.chdir(before)


@settings(deadline=None, max_examples=500)
@given(control=CONTROL)
def test_any_control_data(caller: Caller, control: bytes) -> None:
    expected = Message(control).is_sent()
    message = Message(control)
    with socket.socketpair()[0] as end:
        try:
            result = caller.sending.sendmsg(caller.call(end.fileno(), message.address, 0))
        except OSError as error:
            result = -(error.errno or 0)
    assert result is None or result < 0
    assert (result is None and message.is_sent()) == expected
    # Behind the message, nothing has changed.
    assert message.control.raw[-1:] == b"\0"


@pytest.mark.parametrize("size", [2**20, 2**31, 2**63, 2**64 - 1])
def test_a_size_that_cannot_be(caller: Caller, size: int) -> None:
    message = Message(b"", size)
    assert caller.sending.sendmsg(caller.call(0, message.address, 0)) == -errno.ENOBUFS


@pytest.mark.parametrize("address", [0, 8, 2**47 - 8, 2**63, 2**64 - 1])
def test_no_message_there(caller: Caller, address: int) -> None:
    for count in (0, 1, 2**31, 2**32 - 1):
        assert caller.sending.sendmsg(caller.call(0, address, 0)) is None
        assert caller.sending.sendmmsg(caller.call(0, address, count, 0)) is None
        assert caller.sending.sendmsg_32(caller.call(0, address, 0)) is None
        assert caller.sending.sendmmsg_32(caller.call(0, address, count, 0)) is None


def test_sender_that_ends_while_it_is_looked_at(caller: Caller) -> None:
    """Its IDs are those that it had, not root's, which no process has any more."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)

    class EndsFirst(Identity):
        def of(self, pid: int) -> Credentials:
            os.close(writer)
            os.waitpid(pid, 0)
            return super().of(pid)

    table = CredentialTable(os.memfd_create("credentials"))
    shared = Shared(table, OwnerStore())
    senders = Senders(EndsFirst(table, shared.makers, shared.programs))
    senders.note(child, Sender(initial(5, 6), (5, 6), read_status(child)))
    assert senders.ids(child) == (5, 6)
    assert senders.number(child, 0) == child


def test_what_is_remembered_has_an_end(caller: Caller) -> None:
    control = struct.pack("QiiiIIi", 28, socket.SOL_SOCKET, 2, os.getpid(), 5, 6, 0)
    messages = [Message(control) for _ in range(3000)]
    for message in messages:
        assert caller.sending.sendmsg(caller.call(0, message.address, 0)) is None
    assert len(caller.sending._replaced) <= 1024
    assert caller.senders.ids(os.getpid()) == (5, 6)
