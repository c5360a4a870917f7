"""Receiving messages with descriptors: recvmsg(2), <sys/socket.h>, <bits/socket.h>."""

from __future__ import annotations

import os
import struct
from _socket import MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC, SCM_RIGHTS, SOL_SOCKET
from _thread import _local

from runrootless.linux.control_data import NATIVE
from runrootless.linux.libc import address, c_void_p, check, function

# Not in the standard library's module.
SO_PEEK_OFF = 42
SCM_PIDFD = 4

CONTROL_LIMIT = 8192
"""Room in bytes for whatever the kernel tells of a message: 253 descriptors at most
(``SCM_MAX_FD``), credentials, a security label."""

_NAME_LIMIT = 128
_FIRST_SIZE = 1 << 16
_FD = struct.Struct("=i")
_VECTOR = struct.Struct("@PN")
_HEADER = struct.Struct("@PI4xPNPNi4x")
"""``struct msghdr``: name, iovec, control data with their lengths, and flags."""

_SO_DOMAIN = 39

_getsockopt = function("getsockopt")
_recvmsg = function("recvmsg")


class Received:
    """A message: its length, the part there was room for, its control data and descriptors.

    ``count`` is what recvmsg(2) returns, ``name`` the sender's address, ``control`` the
    control data and ``flags`` the MSG_* flags, as the kernel hands them over. ``given`` are
    the numbers of descriptors that a process has got already, of those that came along.
    """

    __slots__ = ("control", "count", "data", "flags", "given", "name")

    def __init__(self, count: int, data: bytes, name: bytes, control: bytes, flags: int) -> None:
        self.count = count
        self.data = data
        self.name = name
        self.control = control
        self.flags = flags
        self.given: list[int] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Received) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def messages(self) -> list[tuple[int, int, bytes]]:
        """Return level, type and data of each control message."""
        return [
            (level, kind, self.control[offset : offset + length])
            for level, kind, offset, length in NATIVE.messages(self.control)
        ]

    def close_descriptors(self) -> None:
        """Close the descriptors that came along, and that are this process's since."""
        for level, kind, data in self.messages():
            if level == SOL_SOCKET and kind in (SCM_RIGHTS, SCM_PIDFD):
                for fd in unpack_descriptors(data):
                    if fd >= 0:
                        os.close(fd)

    def _key(self) -> tuple[int, bytes, bytes, bytes, int]:
        return self.count, self.data, self.name, self.control, self.flags


def family(fd: int) -> int:
    """Return the address family of a socket (AF_*), which is asked for nothing that may wait.

    Raises OSError: ENOTSOCK.
    """
    value, size = bytearray(_FD.size), bytearray(_FD.pack(_FD.size))
    where = c_void_p(address(value)), c_void_p(address(size))
    check(_getsockopt(fd, SOL_SOCKET, _SO_DOMAIN, *where), "getsockopt")
    (found,) = _FD.unpack(value)
    return int(found)


def unpack_descriptors(data: bytes) -> list[int]:
    """Return the descriptors in the data of an SCM_RIGHTS or SCM_PIDFD."""
    return [fd for (fd,) in _FD.iter_unpack(data[: len(data) // _FD.size * _FD.size])]


def pack_descriptors(descriptors: list[int]) -> bytes:
    """Return the data of an SCM_RIGHTS."""
    return b"".join(map(_FD.pack, descriptors))


class Receiver(_local):
    """Receives messages, never waiting for one; buffers are reused, by each thread its own."""

    def __init__(self) -> None:
        self._name = bytearray(_NAME_LIMIT)
        self._control = bytearray(CONTROL_LIMIT)
        self._vector = bytearray(_VECTOR.size)
        self._header = bytearray(_HEADER.size)
        self._addresses = [address(part) for part in (self._name, self._vector, self._control)]
        self._message = c_void_p(address(self._header))
        self._allocate(_FIRST_SIZE)

    def receive(self, fd: int, size: int, flags: int, room: int = CONTROL_LIMIT) -> Received:
        """Return the next message of a socket, with up to ``size`` bytes of its data.

        Of a stream that may be less than there is. ``room`` is that for control data in
        bytes; descriptors that come with it become this process's own. Raises OSError as
        recvmsg(2) does: EAGAIN where there is no message.
        """
        while True:
            part = min(size, len(self._data))
            # What may be cut off is only looked at, until the buffer is large enough.
            is_trial = part < size and not flags & MSG_PEEK
            if is_trial:
                received = self._receive(fd, part, flags | MSG_PEEK, 0)
            else:
                received = self._receive(fd, part, flags, room)
            if received.flags & MSG_TRUNC and part < size:
                received.close_descriptors()
                self._allocate(2 * len(self._data))
            elif is_trial:
                size = part
            else:
                return received

    def _receive(self, fd: int, size: int, flags: int, room: int) -> Received:
        name, vector, control = self._addresses
        _VECTOR.pack_into(self._vector, 0, self._data_address, size)
        _HEADER.pack_into(self._header, 0, name, _NAME_LIMIT, vector, 1, control, room, 0)
        flags |= MSG_DONTWAIT | MSG_CMSG_CLOEXEC
        count = check(_recvmsg(fd, self._message, flags), "recvmsg")
        _, name_size, _, _, _, control_size, shown = _HEADER.unpack(self._header)
        return Received(
            count,
            bytes(self._data[: min(count, size)]),
            bytes(self._name[:name_size]),
            bytes(self._control[:control_size]),
            shown,
        )

    def _allocate(self, size: int) -> None:
        self._data = bytearray(size)
        self._data_address = address(self._data)
