"""Receiving SCM_CREDENTIALS of unix(7): recvmsg(2), recvmmsg(2), SO_PASSCRED.

The kernel carries out what it can: all, as long as no process has asked for credentials,
and each message that root has sent. Only one with other IDs is received here for its
receiver. The agent peeks at it first, so that everything is written before the message is
taken off the socket, and keeps it if the receiver is interrupted nevertheless.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
import struct
import time
from _socket import (
    MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_PEEK,
    MSG_TRUNC,
    MSG_WAITALL,
    SCM_CREDENTIALS,
    SOL_SOCKET,
)
from _thread import allocate_lock

from runrootless.emulation.call import Call, Waits, failure, require_valid
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.messages.delivery import Delivery, Reception
from runrootless.emulation.messages.key_locks import KeyLocks
from runrootless.emulation.messages.senders import Senders
from runrootless.emulation.messages.sockets import take
from runrootless.emulation.table import SO_PASSCRED
from runrootless.linux.control_data import COMPAT, CREDENTIALS, NATIVE, Layout
from runrootless.linux.messages import CONTROL_LIMIT, SO_PEEK_OFF, Received, Receiver
from runrootless.linux.processes import read_status, status_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_MASK = 0xFFFFFFFF
_FLAGS = MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC
_MSG_WAITFORONE = 0x10000
_VECTORS_LIMIT = 1024
"""``UIO_MAXIOV``."""
_KEPT_LIMIT = 16
_PID_SIZE = 4
_CREDENTIALS_SPACE = 32
"""``CMSG_SPACE(sizeof(struct ucred))`` for the agent itself."""
_TIME = struct.Struct("=qq")
"""``struct timeval``, in seconds and microseconds."""


class _Header:
    """A ``struct msghdr`` before a call that was interrupted, and as that has left it."""

    __slots__ = ("before", "left")

    def __init__(self, before: bytes, left: bytes) -> None:
        self.before = before
        self.left = left


class Receiving(Handlers):
    """Handlers of the calls that receive messages."""

    def __init__(self, shared: Shared, senders: Senders) -> None:
        super().__init__(shared)
        self._senders = senders
        self._interrupted = shared.interrupted
        self._delivery = Delivery(self._memory, senders)
        self._sockets = KeyLocks()
        self._lock = allocate_lock()
        # Messages whose receivers were interrupted when they were to get them, by socket.
        self._kept: dict[int, Received] = {}
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
        if isinstance(call.remembered, _Header) and call.remembered.left == data:
            # Nobody has touched it since the call was interrupted.
            data = call.remembered.before
        header, image = layout.header(data), data
        # A receiver without room for the user ID does not see it.
        if header.control_size <= layout.data_offset + _PID_SIZE:
            return None
        if header.vectors > _VECTORS_LIMIT or header.name_size > _MASK >> 1:
            return None
        data = self._memory.read(call.pid, header.vector, header.vectors * layout.vector_size)
        vectors = None if data is None else layout.vectors(data)
        if vectors is None:
            return None
        return self._attempt(Reception(call, layout, header, image, vectors, flags, one_of_many))

    def _attempt(self, reception: Reception) -> int | None:
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
            reception.process = int(status_fields(status, b"Tgid")[0])
            if not _shows_credentials(socket):
                return None
            try:
                # What is looked at is to be what is taken then.
                self._sockets.acquire(inode)
                try:
                    return self._receive(reception, socket, status)
                finally:
                    self._sockets.release(inode)
            except BlockingIOError:
                if reception.flags & MSG_DONTWAIT or _is_non_blocking(socket):
                    raise
                return self._wait(reception, socket)
        finally:
            socket.close()

    def _wait(self, reception: Reception, socket: _socket.socket | None) -> NoReturn:
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

    def _receive(self, reception: Reception, socket: _socket.socket, status: bytes) -> int | None:
        if self._receiver is None:
            self._receiver = Receiver()
        fd, flags = socket.fileno(), reception.flags
        depth = len(status_fields(status, b"NSpid")) - 1
        size = sum(length for _, length in reception.vectors)
        is_stream = socket.type == _socket.SOCK_STREAM
        kept = self._kept.get(reception.inode)
        if kept is not None:
            head, rest = _split(kept, size, is_stream)
            if self._answer(reception, head, depth) and not flags & MSG_PEEK:
                head.close_descriptors()
                with self._lock:
                    self._kept.pop(reception.inode, None)
                    if rest is not None:
                        self._kept[reception.inode] = rest
            return Call.ANSWERED
        # Without room for them, no descriptors come along.
        first = self._receiver.receive(fd, size, flags | MSG_PEEK, _CREDENTIALS_SPACE)
        is_end = is_stream and size > 0 and first.count == 0
        if not is_end and not self._is_to_change(first):
            return None
        if not flags & MSG_PEEK:
            self._delivery.deliver(reception, first, depth, is_trial=True)
        require_valid(reception.call)
        received = self._receiver.receive(fd, size, flags, CONTROL_LIMIT)
        is_taken = True
        try:
            is_taken = self._answer(reception, received, depth)
        finally:
            if is_taken or is_end or flags & MSG_PEEK:
                received.close_descriptors()
            else:
                self._keep(reception, received)
        return Call.ANSWERED

    def _answer(self, reception: Reception, received: Received, depth: int) -> bool:
        """Give the caller a message, and return whether it has not been interrupted before.

        Raises OSError: EFAULT.
        """
        call = reception.call
        before = bytes(reception.image)
        try:
            self._delivery.deliver(reception, received, depth)
            if call.answer(1 if reception.one_of_many else received.count):
                return True
        except OSError:
            if call.is_valid():
                raise
        self._interrupted.keep(call, _Header(before, bytes(reception.image)))
        received.given = reception.given
        return False

    def _keep(self, reception: Reception, received: Received) -> None:
        """Keep a message for the next call, if anybody is left to make it."""
        if not os.path.exists(b"%d" % reception.call.pid):
            received.close_descriptors()
            return
        with self._lock:
            while len(self._kept) >= _KEPT_LIMIT:
                self._kept.pop(next(iter(self._kept))).close_descriptors()
            self._kept[reception.inode] = received

    def _is_to_change(self, received: Received) -> bool:
        """Return whether the kernel would show other IDs than there should be."""
        for level, kind, data in received.messages():
            if (level, kind) == (SOL_SOCKET, SCM_CREDENTIALS):
                pid, uid, gid = CREDENTIALS.unpack(data)
                return bool(pid and not uid and not gid and any(self._senders.ids(pid)))
        return False


def _split(received: Received, size: int, is_stream: bool) -> tuple[Received, Received | None]:
    """Return what of a message there is room for, and what of a stream is left then."""
    if size >= len(received.data):
        return received, None
    flags = received.flags if is_stream else received.flags | MSG_TRUNC
    head = Received(size, received.data[:size], received.name, received.control, flags)
    head.given = received.given
    if not is_stream:
        return head, None
    data, control = received.data[size:], received.control[:_CREDENTIALS_SPACE]
    return head, Received(len(data), data, received.name, control, received.flags)


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
