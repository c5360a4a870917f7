"""Receiving SCM_CREDENTIALS of unix(7): recvmsg(2), recvmmsg(2), SO_PASSCRED.

The kernel carries out what it can: all, as long as no process has asked for credentials,
and each message that root has sent. Only one with other IDs is received here for its
receiver. It is looked at first, so that all is written before it is taken off the socket:
between that and the answer there is next to nothing.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
import struct
import time

from runrootless.emulation.call import Call, Waits, failure, require_valid
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.senders import Senders
from runrootless.emulation.sockets import take
from runrootless.emulation.table import SO_PASSCRED
from runrootless.linux.control_data import (
    COMPAT,
    CREDENTIALS,
    NATIVE,
    Builder,
    Header,
    Layout,
)
from runrootless.linux.messages import (
    CONTROL_LIMIT,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_PEEK,
    MSG_TRUNC,
    MSG_WAITALL,
    SCM_CREDENTIALS,
    SCM_PIDFD,
    SCM_RIGHTS,
    SO_PEEK_OFF,
    SOL_SOCKET,
    Received,
    Receiver,
    pack_descriptors,
    unpack_descriptors,
)
from runrootless.linux.processes import read_status, status_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_MASK = 0xFFFFFFFF
_FLAGS = MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC
_MSG_WAITFORONE = 0x10000
_VECTORS_LIMIT = 1024
"""``UIO_MAXIOV``."""
_PID_SIZE = 4
_CREDENTIALS_SPACE = 32
"""``CMSG_SPACE(sizeof(struct ucred))`` for the agent itself."""
_LENGTH = struct.Struct("=I")
_TIME = struct.Struct("=qq")
"""``struct timeval``, in seconds and microseconds."""


class _Reception:
    """A recvmsg(2) that is under way.

    ``header`` is at ``address`` in the caller's memory, and ``vectors`` are what it names;
    ``inode`` is that of the socket. ``event`` and ``deadline`` are there once it has waited.
    """

    __slots__ = (
        "address",
        "call",
        "deadline",
        "event",
        "flags",
        "header",
        "inode",
        "layout",
        "one_of_many",
        "vectors",
    )

    def __init__(
        self,
        call: Call,
        layout: Layout,
        header: Header,
        vectors: list[tuple[int, int]],
        flags: int,
        one_of_many: bool,
    ) -> None:
        self.call = call
        self.layout = layout
        self.address = call.arguments[1]
        self.header = header
        self.vectors = vectors
        self.flags = flags
        self.one_of_many = one_of_many
        self.inode = 0
        self.event: select.epoll | None = None
        self.deadline: float | None = None


class Receiving(Handlers):
    """Handlers of the calls that receive messages."""

    def __init__(self, shared: Shared, senders: Senders) -> None:
        super().__init__(shared)
        self._senders = senders
        # Not before it is needed: it is of some size.
        self._receiver: Receiver | None = None

    def setsockopt(self, call: Call) -> None:
        """setsockopt(2) with SO_PASSCRED: from now on it matters who sends."""
        _, level, option = call.arguments[:3]
        if level & _MASK == SOL_SOCKET and option & _MASK == SO_PASSCRED:
            self._senders.ask()

    def recvmsg(self, call: Call) -> int | None:
        """recvmsg(2)."""
        return self._begin(call, NATIVE, 2) if self._senders.are_asked_for else None

    def recvmsg_32(self, call: Call) -> int | None:
        """recvmsg(2) of 32-bit programs."""
        return self._begin(call, COMPAT, 2) if self._senders.are_asked_for else None

    def recvmmsg(self, call: Call) -> int | None:
        """recvmmsg(2), of which only one message is received."""
        return self._begin(call, NATIVE, 3) if self._senders.are_asked_for else None

    def recvmmsg_32(self, call: Call) -> int | None:
        """recvmmsg(2) of 32-bit programs."""
        return self._begin(call, COMPAT, 3) if self._senders.are_asked_for else None

    def _begin(self, call: Call, layout: Layout, flags_index: int) -> int | None:
        one_of_many = flags_index == 3
        flags = call.arguments[flags_index] & _MASK
        if one_of_many:
            flags &= ~_MSG_WAITFORONE
        data = self._memory.read(call.pid, call.arguments[1], layout.size)
        if data is None or flags & ~_FLAGS or (one_of_many and not call.arguments[2] & _MASK):
            return None
        header = layout.header(data)
        # Who has no room for the user ID does not see it.
        if header.control_size <= layout.data_offset + _PID_SIZE:
            return None
        if header.vectors > _VECTORS_LIMIT or header.name_size > _MASK >> 1:
            return None
        data = self._memory.read(call.pid, header.vector, header.vectors * layout.vector_size)
        vectors = None if data is None else layout.vectors(data)
        if vectors is None:
            return None
        return self._attempt(_Reception(call, layout, header, vectors, flags, one_of_many))

    def _attempt(self, reception: _Reception) -> int | None:
        """Return the call's result, None where the kernel is to carry it out; or raise Waits."""
        call = reception.call
        status = read_status(call.pid)
        socket = take(call, status)
        if socket is None:
            return self._wait(reception, None) if reception.event else None
        try:
            inode = os.fstat(socket.fileno()).st_ino
            if reception.event and inode != reception.inode:
                # Another one by that number: the kernel would wait for the first as well.
                return self._wait(reception, None)
            reception.inode = inode
            if not _shows_credentials(socket):
                return None
            try:
                return self._receive(reception, socket, status)
            except BlockingIOError:
                if reception.flags & MSG_DONTWAIT or _is_non_blocking(socket):
                    raise
                return self._wait(reception, socket)
        finally:
            socket.close()

    def _wait(self, reception: _Reception, socket: _socket.socket | None) -> NoReturn:
        """Raise Waits, or the error of a call whose time is over."""
        if reception.event is None and socket is not None:
            reception.deadline = _deadline(socket)
            # The socket stays registered as long as the caller has it, and no longer.
            reception.event = select.epoll()
            reception.event.register(socket.fileno(), select.EPOLLIN | select.EPOLLET)
        if reception.deadline is not None and reception.deadline <= time.monotonic():
            raise failure(errno.EAGAIN)
        assert reception.event is not None
        raise Waits(reception.event, reception.deadline, lambda: self._attempt(reception))

    def _receive(self, reception: _Reception, socket: _socket.socket, status: bytes) -> int | None:
        if self._receiver is None:
            self._receiver = Receiver()
        fd, flags = socket.fileno(), reception.flags
        size = sum(length for _, length in reception.vectors)
        # Without room for them, no descriptors come along.
        first = self._receiver.receive(fd, size, flags | MSG_PEEK, _CREDENTIALS_SPACE)
        is_end = size > 0 and first.count == 0 and socket.type == _socket.SOCK_STREAM
        if not is_end and not self._is_to_change(first):
            return None
        depth = len(status_fields(status, b"NSpid")) - 1
        if not flags & MSG_PEEK:
            self._deliver(reception, first, depth, is_end)
        require_valid(reception.call)
        received = self._receiver.receive(fd, size, flags, CONTROL_LIMIT)
        try:
            if flags & MSG_PEEK or received != first:
                self._deliver(reception, received, depth, is_end)
        finally:
            received.close_descriptors()
        return 1 if reception.one_of_many else received.count

    def _is_to_change(self, received: Received) -> bool:
        """Return whether the kernel would show other IDs than there should be."""
        for level, kind, data in received.messages():
            if (level, kind) == (SOL_SOCKET, SCM_CREDENTIALS):
                pid, uid, gid = CREDENTIALS.unpack(data)
                return bool(pid and not uid and not gid and any(self._senders.ids(pid)))
        return False

    def _deliver(self, reception: _Reception, received: Received, depth: int, is_end: bool) -> None:
        """Write all of a message into the caller's memory. Raises OSError: EFAULT."""
        call, layout, header = reception.call, reception.layout, reception.header
        control = self._control(reception, received, depth, is_end)
        flags = received.flags & ~MSG_CMSG_CLOEXEC | reception.flags & MSG_CMSG_CLOEXEC
        if control.is_cut:
            flags |= MSG_CTRUNC
        parts = [(header.control, control.data)]
        if header.name:
            parts.append((header.name, received.name[: header.name_size]))
            name_size = _LENGTH.pack(len(received.name))
            parts.append((reception.address + layout.name_size_offset, name_size))
        end = layout.pack_end(len(control.data), flags)
        parts.append((reception.address + layout.end_offset, end))
        if reception.one_of_many:
            parts.append((reception.address + layout.size, _LENGTH.pack(received.count)))
        position = 0
        for address, length in reception.vectors:
            if position >= len(received.data):
                break
            parts.append((address, received.data[position : position + length]))
            position += length
        require_valid(call)
        for address, data in parts:
            if not self._memory.write(call.pid, address, data):
                raise failure(errno.EFAULT)

    def _control(
        self, reception: _Reception, received: Received, depth: int, is_end: bool
    ) -> Builder:
        builder = Builder(reception.layout, reception.header.control_size)
        builder.is_cut = bool(received.flags & MSG_CTRUNC)
        for level, kind, data in received.messages():
            if level != SOL_SOCKET:
                builder.put(level, kind, data)
            elif kind == SCM_CREDENTIALS:
                builder.put(level, kind, self._credentials(data, depth, is_end))
            elif kind in (SCM_RIGHTS, SCM_PIDFD):
                _put_descriptors(builder, reception, kind, unpack_descriptors(data))
            else:
                builder.put(level, kind, data)
        return builder

    def _credentials(self, data: bytes, depth: int, is_end: bool) -> bytes:
        """Return the ``struct ucred`` that the caller is to see for the agent's."""
        pid, uid, gid = CREDENTIALS.unpack(data)
        if is_end:
            # The kernel's own IDs stand for nobody: zero, which has no number in the container.
            return CREDENTIALS.pack(0, 0, 0)
        if pid and not uid and not gid:
            uid, gid = self._senders.ids(pid)
        return CREDENTIALS.pack(self._senders.number(pid, depth), uid, gid)


def _put_descriptors(
    builder: Builder, reception: _Reception, kind: int, descriptors: list[int]
) -> None:
    """Give the caller as many descriptors as there is room for, as ``scm_detach_fds`` does."""
    numbers: list[int] = []
    close_on_exec = os.O_CLOEXEC if reception.flags & MSG_CMSG_CLOEXEC or kind == SCM_PIDFD else 0
    for fd in descriptors[: max(0, builder.left()) // len(pack_descriptors([0]))]:
        try:
            numbers.append(reception.call.add_fd(fd, close_on_exec))
        except OSError:
            break
    if numbers:
        builder.put(SOL_SOCKET, kind, pack_descriptors(numbers))
    if len(numbers) < len(descriptors):
        builder.is_cut = True


def _shows_credentials(socket: _socket.socket) -> bool:
    """Return whether the credentials of senders come along, and can be looked at before."""
    return (
        socket.family == _socket.AF_UNIX
        and socket.getsockopt(SOL_SOCKET, SO_PASSCRED) != 0
        # Looking at a message would move where the next look begins.
        and socket.getsockopt(SOL_SOCKET, SO_PEEK_OFF) < 0
    )


def _is_non_blocking(socket: _socket.socket) -> bool:
    return bool(fcntl.fcntl(socket.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK)


def _deadline(socket: _socket.socket) -> float | None:
    """Return when the socket's SO_RCVTIMEO is over, as time.monotonic counts; None for never."""
    option = socket.getsockopt(SOL_SOCKET, _socket.SO_RCVTIMEO, _TIME.size)
    seconds, microseconds = _TIME.unpack(option)
    if not seconds and not microseconds:
        return None
    return time.monotonic() + float(seconds + microseconds / 1e6)
