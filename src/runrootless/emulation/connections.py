"""Who has connected a unix socket, or listens at it: SO_PEERCRED of unix(7).

The kernel keeps the process with the socket, and its own IDs. The emulated ones are noted when
the process connects or listens; they count as long as it makes no other connection.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat
import struct
from _thread import allocate_lock

from runrootless.emulation.call import Call, failure
from runrootless.emulation.checks import Checks
from runrootless.emulation.credentials import Credentials
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.linux.processes import read_status, status_fields

_FAMILY_SIZE = 2
_ADDRESS_LIMIT = 110
_LIMIT = 4096
_SO_PEERPIDFD = 77
_DESCRIPTOR = struct.Struct("=i")


class Connections(Handlers):
    """Handlers of connect(2) and listen(2), with the engine thorough."""

    def __init__(self, shared: Shared, checks: Checks) -> None:
        super().__init__(shared)
        self._checks = checks
        self._lock = allocate_lock()
        # By process: who it was, and what tells it from others that have had its number.
        self._connected: dict[int, tuple[Credentials, int]] = {}
        self._listening: dict[int, tuple[Credentials, int]] = {}

    def connect(self, call: Call) -> None:
        """connect(2): the kernel carries it out, however long that takes."""
        _, address, length = call.arguments[:3]
        if not _FAMILY_SIZE <= length <= _ADDRESS_LIMIT:
            return
        data = self._memory.read(call.pid, address, length)
        if data is None or int.from_bytes(data[:_FAMILY_SIZE], "little") != _socket.AF_UNIX:
            return
        path = data[_FAMILY_SIZE:].partition(b"\0")[0]
        if path:
            self._checks.require_connect(call, path)
        self._note(call, self._connected)

    def listen(self, call: Call) -> None:
        """listen(2)."""
        try:
            mode = os.stat(b"%d/fd/%d" % (call.pid, call.descriptor(0))).st_mode
        except OSError:
            raise failure(errno.EBADF) from None
        if stat.S_ISSOCK(mode):
            self._note(call, self._listening)

    def credentials(self, socket: _socket.socket, peer: int) -> Credentials | None:
        """Return what the peer of a connected socket was, None where that is not known.

        ``peer`` is its process. Raises OSError.
        """
        # Who has connected has the name of who listens for its peer's, and none of its own as
        # a rule.
        has_connected = socket.getpeername() and not socket.getsockname()
        with self._lock:
            found = (self._listening if has_connected else self._connected).get(peer)
        if found is None:
            return None
        credentials, mark = found
        present = _peer_mark(socket)
        return credentials if present in (mark, 0) else None

    def _note(self, call: Call, notes: dict[int, tuple[Credentials, int]]) -> None:
        process = int(status_fields(read_status(call.pid), b"Tgid")[0])
        note = self._identity.of(call.pid), _mark(os.pidfd_open(process))
        with self._lock:
            notes.pop(process, None)
            while len(notes) >= _LIMIT:
                del notes[next(iter(notes))]
            notes[process] = note


def _mark(pidfd: int) -> int:
    """Return the number of a process that no other has, and close its descriptor.

    Before Linux 6.9 all have the same.
    """
    try:
        return os.fstat(pidfd).st_ino
    finally:
        os.close(pidfd)


def _peer_mark(socket: _socket.socket) -> int:
    """Return the number of the process at the other end of a socket, 0 if it is not to be had.

    That is before Linux 6.5, and before 6.16 where the process has ended.
    """
    try:
        option = socket.getsockopt(_socket.SOL_SOCKET, _SO_PEERPIDFD, _DESCRIPTOR.size)
    except OSError:
        return 0
    return _mark(*_DESCRIPTOR.unpack(option))
