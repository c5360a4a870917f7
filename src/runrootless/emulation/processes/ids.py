"""Who a process is, asked and changed: getuid(2), setuid(2), getgroups(2) and their relatives."""

from __future__ import annotations

import errno
import struct

from runrootless.emulation.call import Call, write
from runrootless.emulation.callers.credentials import (
    CAP_SETGID,
    CAP_SETUID,
    GROUPS_LIMIT,
    Credentials,
    set_all,
    set_file_system,
    set_id,
    set_real_effective,
)
from runrootless.emulation.handlers import Handlers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.emulation.callers import credentials

    Rule = Callable[..., credentials.Ids]

_ID = struct.Struct("=I")
_MASK = 0xFFFFFFFF


class Ids(Handlers):
    """Handlers of the calls that ask for or change a process's user and group IDs."""

    # Asking.

    def getuid(self, call: Call) -> int:
        """getuid(2)."""
        return self._identity.of(call.pid).uids[0]

    def geteuid(self, call: Call) -> int:
        """geteuid(2)."""
        return self._identity.of(call.pid).uids[1]

    def getgid(self, call: Call) -> int:
        """getgid(2)."""
        return self._identity.of(call.pid).gids[0]

    def getegid(self, call: Call) -> int:
        """getegid(2)."""
        return self._identity.of(call.pid).gids[1]

    def getresuid(self, call: Call) -> int:
        """getresuid(2)."""
        return self._write_ids(call, self._identity.of(call.pid).uids)

    def getresgid(self, call: Call) -> int:
        """getresgid(2)."""
        return self._write_ids(call, self._identity.of(call.pid).gids)

    def getgroups(self, call: Call) -> int:
        """getgroups(2)."""
        size = call.descriptor(0)
        groups = self._identity.of(call.pid).groups
        if size == 0:
            return len(groups)
        if size < len(groups):
            return -errno.EINVAL
        if not write(self._memory, call, (call.arguments[1], _pack_ids(groups))):
            return -errno.EFAULT
        return len(groups)

    # Changing.

    def setuid(self, call: Call) -> int:
        """setuid(2)."""
        self._change_uids(call, set_id, 1)
        return 0

    def setgid(self, call: Call) -> int:
        """setgid(2)."""
        self._change_gids(call, set_id, 1)
        return 0

    def setreuid(self, call: Call) -> int:
        """setreuid(2)."""
        self._change_uids(call, set_real_effective, 2)
        return 0

    def setregid(self, call: Call) -> int:
        """setregid(2)."""
        self._change_gids(call, set_real_effective, 2)
        return 0

    def setresuid(self, call: Call) -> int:
        """setresuid(2)."""
        self._change_uids(call, set_all, 3)
        return 0

    def setresgid(self, call: Call) -> int:
        """setresgid(2)."""
        self._change_gids(call, set_all, 3)
        return 0

    def setfsuid(self, call: Call) -> int:
        """setfsuid(2): the result is the former ID, whatever happened."""
        return self._change_uids(call, set_file_system, 1).uids[3]

    def setfsgid(self, call: Call) -> int:
        """setfsgid(2): the result is the former ID, whatever happened."""
        return self._change_gids(call, set_file_system, 1).gids[3]

    def setgroups(self, call: Call) -> int:
        """setgroups(2)."""
        old = self._identity.of(call.pid)
        size = call.arguments[0] & _MASK
        if not self._identity.may(call.pid, old, CAP_SETGID):
            return -errno.EPERM
        if size > GROUPS_LIMIT:
            return -errno.EINVAL
        data = self._memory.read(call.pid, call.arguments[1], 4 * size)
        if data is None:
            return -errno.EFAULT
        self._identity.change(call, old, old.with_groups([gid for (gid,) in _ID.iter_unpack(data)]))
        return 0

    def _change_uids(self, call: Call, rule: Rule, count: int) -> Credentials:
        old = self._identity.of(call.pid)
        wanted = [argument & _MASK for argument in call.arguments[:count]]
        privileged = self._identity.may(call.pid, old, CAP_SETUID)
        self._identity.change(call, old, old.with_uids(rule(old.uids, *wanted, privileged)))
        return old

    def _change_gids(self, call: Call, rule: Rule, count: int) -> Credentials:
        old = self._identity.of(call.pid)
        wanted = [argument & _MASK for argument in call.arguments[:count]]
        privileged = self._identity.may(call.pid, old, CAP_SETGID)
        self._identity.change(call, old, old.with_gids(rule(old.gids, *wanted, privileged)))
        return old

    def _write_ids(self, call: Call, ids: tuple[int, ...]) -> int:
        parts = zip(call.arguments[:3], map(_ID.pack, ids[:3]))
        return 0 if write(self._memory, call, *parts) else -errno.EFAULT


def _pack_ids(ids: tuple[int, ...]) -> bytes:
    return b"".join(map(_ID.pack, ids))
