"""Who a process is: getuid(2), setuid(2), getgroups(2) and their relatives.

The identity is kept by the kernel, in the soft limit of RLIMIT_RTTIME, which is
inherited over fork and exec and which hardly anything in a container uses otherwise.
What the container sees of that limit is in ``limits``.
"""

from __future__ import annotations

import errno
import struct

from runrootless.emulation.call import Call, failure, require_valid
from runrootless.emulation.credential_table import INFINITY, CredentialTable, is_varied
from runrootless.emulation.credentials import (
    CAP_SETGID,
    CAP_SETUID,
    GROUPS_LIMIT,
    ROOT,
    Credentials,
    set_all,
    set_file_system,
    set_id,
    set_real_effective,
)
from runrootless.emulation.threads import Threads
from runrootless.linux.capabilities import bounding_set, capabilities
from runrootless.linux.limits import RLIMIT_RTTIME, get_soft_limit, set_soft_limit
from runrootless.linux.memory import Memory
from runrootless.linux.processes import memory_layout, shares_user_namespace, thread_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.emulation.credential_table import State
    from runrootless.emulation.credentials import Ids

_ID = struct.Struct("=I")
_MASK = 0xFFFFFFFF
_EXECUTING_LIMIT = 4096


class Identity:
    """Handlers of the calls that ask for or change a process's credentials."""

    def __init__(self, memory: Memory, table: CredentialTable) -> None:
        self._memory = memory
        self._table = table
        self._threads = Threads(table)
        self._executing: dict[int, tuple[bytes, Credentials, State]] = {}
        self._bounding = 0
        self.observer: Callable[[int, Credentials], None] | None = None
        """What is given each thread that changes its credentials, or executes a program."""

    def of(self, pid: int) -> Credentials:
        """Return the credentials of a thread; root's where it is gone or not emulated."""
        if pid in self._executing:
            self._settle_exec(pid)
        try:
            soft = get_soft_limit(pid, RLIMIT_RTTIME)
        except OSError:
            return ROOT
        return self._table.decode(soft) or self._threads.credentials(b"%d" % pid, soft)

    def joined(self, pid: int) -> None:
        """Take note of what the container's first process ``pid`` may be given. Raises OSError."""
        self._bounding = bounding_set(pid)

    def may(self, pid: int, credentials: Credentials, capability: int) -> bool:
        """Return whether a thread, which has these credentials, has a capability.

        The kernel has to leave it as well: in the permitted set, or else in the bounding set,
        out of which execve(2) gives it back to root, though not under no_new_privs, which the
        filter takes. In a user namespace of their own processes have no more than the
        container's first one. Raises OSError where the thread is gone.
        """
        if not credentials.can(capability):
            return False
        _, held, _ = capabilities(pid)
        if not held & capability:
            held = bounding_set(pid)
        if held & ~self._bounding and _is_elsewhere(pid):
            held &= self._bounding
        return bool(held & capability)

    def of_limit(self, soft: int, directory: bytes) -> tuple[Credentials, State]:
        """Return the credentials of a thread, and what else is kept of its process.

        ``soft`` is its soft limit of RLIMIT_RTTIME, and ``directory`` its directory in /proc.
        """
        found = self._table.decode(soft) or self._threads.credentials(directory, soft)
        return found, self._table.state(soft)

    def state(self, pid: int) -> State:
        """Return what is kept of a process besides its credentials. Raises OSError: ESRCH."""
        if pid in self._executing:
            self._settle_exec(pid)
        return self._table.state(get_soft_limit(pid, RLIMIT_RTTIME))

    def set_state(self, pid: int, state: State) -> None:
        """Set what is kept of a process besides its credentials. Raises OSError: ENOMEM, ESRCH."""
        number = get_soft_limit(pid, RLIMIT_RTTIME)
        encode = self._table.encode_varied if is_varied(number) else self._table.encode
        new = encode(self._table.base(number), state)
        set_soft_limit(pid, RLIMIT_RTTIME, new, INFINITY)

    def is_marked(self, pid: int) -> bool:
        """Return whether a thread is marked as one that differs. Raises OSError: ESRCH, ENOENT."""
        number = get_soft_limit(pid, RLIMIT_RTTIME)
        return is_varied(number) and self._threads.is_marked(pid)

    def change(self, call: Call, old: Credentials, new: Credentials) -> None:
        """Give the calling thread new credentials. Raises OSError: ENOMEM, ESRCH."""
        if new == old:
            return
        require_valid(call)
        soft, hard, dumpable = self.state(call.pid)
        self._set(call.pid, new, (soft, hard, dumpable and not new.is_gained_from(old)))

    def change_by_exec(self, call: Call, owner: int | None, group: int | None) -> None:
        """Give the caller what an execve(2) that is let through now will make of it.

        ``owner`` and ``group`` are those of a set-user-ID and set-group-ID file, else None.
        Should that fail after all, the old credentials come back when they are asked for.
        Raises OSError: ENOMEM, ESRCH.
        """
        if call.pid in self._executing:
            self._settle_exec(call.pid)
        number = get_soft_limit(call.pid, RLIMIT_RTTIME)
        if number == INFINITY and owner is None and group is None:
            # Root, before and after.
            if self.observer is not None:
                self.observer(call.pid, ROOT)
            return
        old, old_state = self.of_limit(number, b"%d" % call.pid)
        new = old.after_exec(owner, group)
        plain = old.uids[0] == old.uids[1] and old.gids[0] == old.gids[1]
        state = (*old_state[:2], plain and not new.is_gained_from(old))
        if new == old and state == old_state:
            if self.observer is not None:
                self.observer(call.pid, new)
            return
        while len(self._executing) >= _EXECUTING_LIMIT:
            del self._executing[next(iter(self._executing))]
        require_valid(call)
        self._executing[call.pid] = (memory_layout(call.pid), old, old_state)
        self._set(call.pid, new, state)

    def _set(self, pid: int, new: Credentials, state: State) -> None:
        number = get_soft_limit(pid, RLIMIT_RTTIME)
        alone = thread_count(pid) == 1
        if alone:
            changed = self._table.encode(new, state)
        else:
            changed = self._threads.change(pid, number, new, state)
        if changed != number:
            set_soft_limit(pid, RLIMIT_RTTIME, changed, INFINITY)
        # Not before: what is forked meanwhile would take the marks for missing.
        if not is_varied(changed) and (is_varied(number) or not alone):
            self._threads.clear(pid)
        if self.observer is not None:
            self.observer(pid, new)

    def _settle_exec(self, pid: int) -> None:
        layout, old, state = self._executing.pop(pid)
        try:
            if memory_layout(pid) == layout:
                self._set(pid, old, state)
        except OSError:
            # Gone.
            pass

    # Asking.

    def getuid(self, call: Call) -> int:
        """getuid(2)."""
        return self.of(call.pid).uids[0]

    def geteuid(self, call: Call) -> int:
        """geteuid(2)."""
        return self.of(call.pid).uids[1]

    def getgid(self, call: Call) -> int:
        """getgid(2)."""
        return self.of(call.pid).gids[0]

    def getegid(self, call: Call) -> int:
        """getegid(2)."""
        return self.of(call.pid).gids[1]

    def getresuid(self, call: Call) -> int:
        """getresuid(2)."""
        return self._write_ids(call, self.of(call.pid).uids)

    def getresgid(self, call: Call) -> int:
        """getresgid(2)."""
        return self._write_ids(call, self.of(call.pid).gids)

    def getgroups(self, call: Call) -> int:
        """getgroups(2)."""
        size = call.descriptor(0)
        groups = self.of(call.pid).groups
        if size == 0:
            return len(groups)
        if size < len(groups):
            return -errno.EINVAL
        require_valid(call)
        if not self._memory.write(call.pid, call.arguments[1], _pack_ids(groups)):
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
        old = self.of(call.pid)
        size = call.arguments[0] & _MASK
        if not self.may(call.pid, old, CAP_SETGID):
            return -errno.EPERM
        if size > GROUPS_LIMIT:
            return -errno.EINVAL
        data = self._memory.read(call.pid, call.arguments[1], 4 * size)
        if data is None:
            return -errno.EFAULT
        self.change(call, old, old.with_groups([gid for (gid,) in _ID.iter_unpack(data)]))
        return 0

    def _change_uids(self, call: Call, rule: Callable[..., Ids], count: int) -> Credentials:
        old = self.of(call.pid)
        wanted = [argument & _MASK for argument in call.arguments[:count]]
        privileged = self.may(call.pid, old, CAP_SETUID)
        self.change(call, old, old.with_uids(rule(old.uids, *wanted, privileged)))
        return old

    def _change_gids(self, call: Call, rule: Callable[..., Ids], count: int) -> Credentials:
        old = self.of(call.pid)
        wanted = [argument & _MASK for argument in call.arguments[:count]]
        privileged = self.may(call.pid, old, CAP_SETGID)
        self.change(call, old, old.with_gids(rule(old.gids, *wanted, privileged)))
        return old

    def _write_ids(self, call: Call, ids: tuple[int, ...]) -> int:
        require_valid(call)
        for address, value in zip(call.arguments[:3], ids[:3], strict=True):
            if not self._memory.write(call.pid, address, _ID.pack(value)):
                raise failure(errno.EFAULT)
        return 0


def _pack_ids(ids: tuple[int, ...]) -> bytes:
    return b"".join(map(_ID.pack, ids))


def _is_elsewhere(pid: int) -> bool:
    """Return whether a thread is in another user namespace than the container's own.

    Also where the thread cannot be looked at: it is the runtime, or gone.
    """
    try:
        return not shares_user_namespace(pid)
    except OSError:
        return True
