"""Unix sockets: the credentials of the peer, and the owner of the file that bind(2) makes."""

from __future__ import annotations

import _socket
import errno
import os
import struct

from runrootless.emulation.call import Call, write
from runrootless.emulation.files.creation import Creation
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.owners.expectations import address_of
from runrootless.emulation.table import SO_PEERCRED, SO_PEERGROUPS
from runrootless.linux.control_data import CREDENTIALS
from runrootless.linux.files import AT_FDCWD
from runrootless.linux.messages import family
from runrootless.linux.pidfd import duplicate
from runrootless.linux.processes import read_status, status_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.permissions.checks import Checks

_FAMILIES = (_socket.AF_UNIX, _socket.AF_NETLINK)
_PATH_OFFSET = 2
_ADDRESS_LIMIT = 110
_MASK = 0xFFFFFFFF
_ID = struct.Struct("=I")
_LENGTH = struct.Struct("=i")


class Sockets(Handlers):
    """Handlers of socket calls."""

    def __init__(self, shared: Shared, creation: Creation, checks: Checks | None) -> None:
        super().__init__(shared)
        self._creation = creation
        self._checks = checks

    def bind(self, call: Call) -> None:
        """bind(2): the kernel makes the file, and its owner is recorded once it is there."""
        _, address, length = call.arguments[:3]
        if not _PATH_OFFSET < length <= _ADDRESS_LIMIT:
            return
        data = self._memory.read(call.pid, address, length)
        if data is None or int.from_bytes(data[:2], "little") != _socket.AF_UNIX:
            return
        path = data[_PATH_OFFSET:].partition(b"\0")[0]
        if not path:
            return
        if self._checks is not None:
            self._checks.require_new(call, path)
        try:
            found = self._paths.find_path(call.pid, AT_FDCWD, path, False)
        except OSError:
            # The kernel will tell the caller the same, unless it is no socket.
            return
        with found:
            record = self._creation.owner(call, found.parent) if found.has_room() else None
            if record is None:
                return
            socket = take(call, read_status(call.pid))
            if socket is None:
                return
            if socket.family != _socket.AF_UNIX or address_of(socket):
                # The kernel refuses it.
                socket.close()
                return
            expectations = self._ownership.expectations
            expectations.add(found.parent, found.name, record, socket, path, call)

    def getsockopt(self, call: Call) -> int | None:
        """getsockopt(2) with SO_PEERCRED or SO_PEERGROUPS: what the peer has by now."""
        _, level, option, value, length = call.arguments[:5]
        is_known = option & _MASK in (SO_PEERCRED, SO_PEERGROUPS)
        if level & _MASK != _socket.SOL_SOCKET or not is_known:
            return None
        packed = self._memory.read(call.pid, length, _LENGTH.size)
        if packed is None:
            return None
        (size,) = _LENGTH.unpack(packed)
        if size < 0:
            return None
        status = read_status(call.pid)
        socket = take(call, status)
        peer = 0 if socket is None else _peer(socket)
        if peer <= 0:
            return None
        credentials = self._identity.of(peer)
        if option & _MASK == SO_PEERCRED:
            number = number_for(peer, len(status_fields(status, b"NSpid")) - 1)
            answer = CREDENTIALS.pack(number, credentials.uids[1], credentials.gids[1])[:size]
            result = 0
        else:
            answer = b"".join(map(_ID.pack, credentials.groups))
            result = 0 if size >= len(answer) else -errno.ERANGE
        # Where there is no room, this tells how much there must be.
        parts = [(length, _LENGTH.pack(len(answer)))]
        if result == 0:
            parts.insert(0, (value, answer))
        return result if write(self._memory, call, *parts) else -errno.EFAULT


def take(call: Call, status: bytes) -> _socket.socket | None:
    """Return the socket that the first argument of a call names, if it may have credentials.

    None where it names none, or one of another family. ``status`` is the text of the caller's
    status file. It is the caller's own socket, with its flags, and to be closed.
    """
    try:
        fd = duplicate(int(status_fields(status, b"Tgid")[0]), call.descriptor(0))
    except OSError:
        return None
    try:
        if family(fd) in _FAMILIES:
            return _socket.socket(fileno=fd)
    except OSError:
        pass
    # Others are not even to be asked for their name: the kernel locks what it may be receiving
    # from, into memory that somebody is to fill, and Python does not let go of the interpreter.
    os.close(fd)
    return None


def number_for(pid: int, depth: int) -> int:
    """Return a process's number in the pid namespace that is so far down, 0 if it has none."""
    try:
        numbers = status_fields(read_status(pid), b"NSpid")
    except OSError:
        return 0
    return int(numbers[depth]) if depth < len(numbers) else 0


def _peer(socket: _socket.socket) -> int:
    """Return the process at the other end of a socket, 0 where there is none. Closes it."""
    try:
        option = socket.getsockopt(_socket.SOL_SOCKET, SO_PEERCRED, CREDENTIALS.size)
        return int(CREDENTIALS.unpack(option)[0])
    except OSError:
        return 0
    finally:
        socket.close()
