"""Unix sockets: who the peer is, and whose the file is that bind(2) makes."""

from __future__ import annotations

import _socket
import errno
import os
import struct

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.creation import Creation
from runrootless.emulation.identity import Identity
from runrootless.emulation.ownership import Ownership
from runrootless.emulation.paths import Paths
from runrootless.linux.files import AT_FDCWD, AT_SYMLINK_NOFOLLOW, Files
from runrootless.linux.memory import Memory
from runrootless.linux.pidfd import duplicate
from runrootless.linux.processes import read_status, status_fields

_PATH_OFFSET = 2
_ADDRESS_LIMIT = 110
_LENGTH = struct.Struct("=i")
_CREDENTIALS = struct.Struct("=iII")
"""``struct ucred`` of unix(7): pid, uid, gid."""


class Sockets:
    """Handlers of socket calls."""

    def __init__(
        self,
        memory: Memory,
        files: Files,
        paths: Paths,
        ownership: Ownership,
        identity: Identity,
        creation: Creation,
    ) -> None:
        self._memory = memory
        self._files = files
        self._paths = paths
        self._ownership = ownership
        self._identity = identity
        self._creation = creation

    def bind(self, call: Call) -> None:
        """bind(2): the kernel makes the file, and whose it is is recorded when it is there."""
        _, address, length = call.arguments[:3]
        if not _PATH_OFFSET < length <= _ADDRESS_LIMIT:
            return
        data = self._memory.read(call.pid, address, length)
        if data is None or int.from_bytes(data[:2], "little") != _socket.AF_UNIX:
            return
        path = data[_PATH_OFFSET:].partition(b"\0")[0]
        if not path:
            return
        name = self._paths.name_of(call, AT_FDCWD, path)
        record = self._creation.owner(call, name)
        if record is None or self._files.stat(name, AT_SYMLINK_NOFOLLOW) == 0:
            return
        self._ownership.expect(name, record)

    def getsockopt(self, call: Call) -> int | None:
        """getsockopt(SO_PEERCRED): the emulated IDs that the peer has by now."""
        _, level, _, value, length = call.arguments[:5]
        if level & 0xFFFFFFFF != _socket.SOL_SOCKET:
            return None
        packed = self._memory.read(call.pid, length, _LENGTH.size)
        if packed is None:
            return None
        (size,) = _LENGTH.unpack(packed)
        if size < 0:
            return None
        status = read_status(call.pid)
        try:
            fd = duplicate(int(status_fields(status, b"Tgid")[0]), call.descriptor(0))
        except OSError:
            return None
        option = _peer(fd)
        if option is None:
            return None
        peer, _, _ = _CREDENTIALS.unpack(option)
        if peer <= 0:
            return None
        try:
            # The peer's number in the caller's pid namespace, if it has one there.
            depth = len(status_fields(status, b"NSpid")) - 1
            numbers = status_fields(read_status(peer), b"NSpid")
        except OSError:
            return None
        inner = int(numbers[depth]) if depth < len(numbers) else 0
        credentials = self._identity.of(peer)
        answer = _CREDENTIALS.pack(inner, credentials.uids[1], credentials.gids[1])[:size]
        require_valid(call)
        if not self._memory.write(call.pid, value, answer):
            return -errno.EFAULT
        return (
            0 if self._memory.write(call.pid, length, _LENGTH.pack(len(answer))) else -errno.EFAULT
        )


def _peer(fd: int) -> bytes | None:
    """Return ``struct ucred`` of a socket's peer, None where it is no socket. Closes ``fd``."""
    try:
        socket = _socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return None
    try:
        return socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return None
    finally:
        socket.close()
