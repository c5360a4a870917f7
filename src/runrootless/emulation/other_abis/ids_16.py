"""Calls of 32-bit programs with 16-bit IDs, as C libraries made them before Linux 2.4.

The kernel's kernel/uid16.c: an ID that does not fit is shown as 65534, and 65535
stands for -1 where that means no change.
"""

from __future__ import annotations

import errno
import struct

from runrootless.emulation.call import Call, write
from runrootless.emulation.callers.credentials import CAP_SETGID, GROUPS_LIMIT
from runrootless.emulation.files.chown import Chown
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.processes.ids import Ids

_ID = struct.Struct("=H")
_NO_CHANGE_16 = 0xFFFF
_NO_CHANGE = 0xFFFFFFFF
_OVERFLOW = 65534


def shown(id_: int) -> int:
    """Return how a 16-bit call tells an ID."""
    return id_ if id_ <= _NO_CHANGE_16 else _OVERFLOW


class Ids16(Handlers):
    """Handlers of these calls: their IDs are widened, and the common rules applied."""

    def __init__(self, shared: Shared, chown: Chown, ids: Ids) -> None:
        super().__init__(shared)
        self._chown = chown
        self._ids = ids

    def getuid(self, call: Call) -> int:
        """getuid(2)."""
        return shown(self._ids.getuid(call))

    def geteuid(self, call: Call) -> int:
        """geteuid(2)."""
        return shown(self._ids.geteuid(call))

    def getgid(self, call: Call) -> int:
        """getgid(2)."""
        return shown(self._ids.getgid(call))

    def getegid(self, call: Call) -> int:
        """getegid(2)."""
        return shown(self._ids.getegid(call))

    def getresuid(self, call: Call) -> int:
        """getresuid(2)."""
        return self._write_each(call, self._identity.of(call.pid).uids)

    def getresgid(self, call: Call) -> int:
        """getresgid(2)."""
        return self._write_each(call, self._identity.of(call.pid).gids)

    def getgroups(self, call: Call) -> int:
        """getgroups(2)."""
        size = call.descriptor(0)
        groups = self._identity.of(call.pid).groups
        if size and size < len(groups):
            return -errno.EINVAL
        if size:
            packed = b"".join(_ID.pack(shown(gid)) for gid in groups)
            if not write(self._memory, call, (call.arguments[1], packed)):
                return -errno.EFAULT
        return len(groups)

    def setuid(self, call: Call) -> int:
        """setuid(2)."""
        return self._ids.setuid(_widened(call, 0, 1))

    def setgid(self, call: Call) -> int:
        """setgid(2)."""
        return self._ids.setgid(_widened(call, 0, 1))

    def setreuid(self, call: Call) -> int:
        """setreuid(2)."""
        return self._ids.setreuid(_widened(call, 0, 2))

    def setregid(self, call: Call) -> int:
        """setregid(2)."""
        return self._ids.setregid(_widened(call, 0, 2))

    def setresuid(self, call: Call) -> int:
        """setresuid(2)."""
        return self._ids.setresuid(_widened(call, 0, 3))

    def setresgid(self, call: Call) -> int:
        """setresgid(2)."""
        return self._ids.setresgid(_widened(call, 0, 3))

    def setfsuid(self, call: Call) -> int:
        """setfsuid(2)."""
        return self._ids.setfsuid(_widened(call, 0, 1))

    def setfsgid(self, call: Call) -> int:
        """setfsgid(2)."""
        return self._ids.setfsgid(_widened(call, 0, 1))

    def setgroups(self, call: Call) -> int:
        """setgroups(2)."""
        old = self._identity.of(call.pid)
        size = call.arguments[0] & _NO_CHANGE
        if not self._identity.may(call.pid, old, CAP_SETGID):
            return -errno.EPERM
        if size > GROUPS_LIMIT:
            return -errno.EINVAL
        data = self._memory.read(call.pid, call.arguments[1], _ID.size * size)
        if data is None:
            return -errno.EFAULT
        new = old.with_groups([_wide(gid) for (gid,) in _ID.iter_unpack(data)])
        self._identity.change(call, old, new)
        return 0

    def chown(self, call: Call) -> int | None:
        """chown(2)."""
        return self._chown.chown(_widened(call, 1, 3))

    def lchown(self, call: Call) -> int | None:
        """lchown(2)."""
        return self._chown.lchown(_widened(call, 1, 3))

    def fchown(self, call: Call) -> int | None:
        """fchown(2)."""
        return self._chown.fchown(_widened(call, 1, 3))

    def _write_each(self, call: Call, ids: tuple[int, ...]) -> int:
        packed = [_ID.pack(shown(id_)) for id_ in ids[:3]]
        parts = zip(call.arguments[:3], packed)
        return 0 if write(self._memory, call, *parts) else -errno.EFAULT


def _widened(call: Call, start: int, end: int) -> Call:
    """Make the arguments of a call from ``start`` to before ``end`` 32-bit IDs; return it."""
    call.arguments = [
        _wide(argument & _NO_CHANGE_16) if start <= index < end else argument
        for index, argument in enumerate(call.arguments)
    ]
    return call


def _wide(id_: int) -> int:
    return _NO_CHANGE if id_ == _NO_CHANGE_16 else id_
