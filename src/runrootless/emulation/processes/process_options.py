"""Options of processes that depend on who they are: prctl(2)."""

from __future__ import annotations

import errno

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.callers.credentials import (
    CAP_SETPCAP,
    CAP_SYS_RESOURCE,
    SECURE_KEEP_CAPS,
)
from runrootless.emulation.callers.threads import DEFAULT_SLACK
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.table import (
    PR_CAPBSET_DROP,
    PR_GET_DUMPABLE,
    PR_GET_NO_NEW_PRIVS,
    PR_GET_TIMERSLACK,
    PR_SET_DUMPABLE,
    PR_SET_KEEPCAPS,
    PR_SET_MM,
    PR_SET_SECCOMP,
    PR_SET_SECUREBITS,
    PR_SET_TIMERSLACK,
)
from runrootless.linux.capabilities import is_effective

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# <linux/securebits.h>: each bit is followed by its lock. The last two are everybody's: Linux 6.14.
_SECUREBITS = 0xFFF
_LOCKS = 0xAAA
_UNPRIVILEGED = 0xF00
# <linux/prctl.h>: only tells a size.
_PR_SET_MM_MAP_SIZE = 15


class ProcessOptions(Handlers):
    """Handlers of prctl(2) and seccomp(2).

    ``filtered`` is called when a process is about to get a filter of its own.
    """

    def __init__(self, shared: Shared, filtered: Callable[[], None]) -> None:
        super().__init__(shared)
        self._filtered = filtered
        self._options = {
            PR_SET_KEEPCAPS: self._set_keep_capabilities,
            PR_SET_SECUREBITS: self._set_securebits,
            PR_SET_SECCOMP: self.seccomp,
            PR_CAPBSET_DROP: self._drop_from_bounding_set,
            PR_SET_MM: self._set_memory_map,
            PR_GET_NO_NEW_PRIVS: self._get_no_new_privileges,
            PR_SET_DUMPABLE: self._set_dumpable,
            PR_GET_DUMPABLE: self._get_dumpable,
            PR_SET_TIMERSLACK: self._timer_slack,
            PR_GET_TIMERSLACK: self._timer_slack,
        }

    def prctl(self, call: Call) -> int | None:
        """prctl(2) with one of these options."""
        option = self._options.get(call.arguments[0] & 0xFFFFFFFF)
        return None if option is None else option(call)

    def seccomp(self, call: Call) -> None:
        """seccomp(2)."""
        self._filtered()

    def _set_keep_capabilities(self, call: Call) -> None:
        value = call.arguments[1]
        old = self._identity.of(call.pid)
        if value <= 1 and not old.securebits & SECURE_KEEP_CAPS << 1:
            bits = old.securebits & ~SECURE_KEEP_CAPS | SECURE_KEEP_CAPS * value
            self._identity.change(call, old, old.with_securebits(bits))

    def _set_securebits(self, call: Call) -> int | None:
        new = call.arguments[1]
        old = self._identity.of(call.pid)
        changed, locks = old.securebits ^ new, old.securebits & _LOCKS
        may = old.can(CAP_SETPCAP) and is_effective(call.pid, CAP_SETPCAP)
        # The kernel's own rules: what it refuses must not be noted.
        if (
            (not may and (not changed or changed & ~_UNPRIVILEGED))
            or new & ~_SECUREBITS
            or locks & ~new
            or locks >> 1 & changed
        ):
            return -errno.EPERM
        self._identity.change(call, old, old.with_securebits(new))
        return None

    def _drop_from_bounding_set(self, call: Call) -> int | None:
        return None if self._identity.of(call.pid).can(CAP_SETPCAP) else -errno.EPERM

    def _set_memory_map(self, call: Call) -> int | None:
        """Refuse to users what would make a program look like one that was just executed.

        Settling what is pending would not be enough: the kernel may carry the call out as late
        as in the midst of the next execve(2). Root gains nothing by it.
        """
        if call.arguments[1] & 0xFFFFFFFF == _PR_SET_MM_MAP_SIZE:
            return None
        credentials = self._identity.of(call.pid)
        if credentials.uids[1] or not credentials.can(CAP_SYS_RESOURCE):
            return -errno.EPERM
        self._identity.settle(call.pid)
        return None

    def _get_no_new_privileges(self, call: Call) -> int:
        # The flag is set for the filter, and set-user-ID files work nevertheless.
        return -errno.EINVAL if any(call.arguments[1:5]) else 0

    def _set_dumpable(self, call: Call) -> None:
        value = call.arguments[1]
        if value <= 1:
            require_valid(call)
            self._identity.set_dumpable(call.pid, bool(value))

    def _get_dumpable(self, call: Call) -> int | None:
        _, _, dumpable = self._identity.state(call.pid)
        return None if dumpable else 0

    def _timer_slack(self, call: Call) -> int | None:
        """Hide the slack of a thread that is marked by it, and keep it."""
        if not self._identity.is_marked(call.pid):
            return None
        get = call.arguments[0] & 0xFFFFFFFF == PR_GET_TIMERSLACK
        return DEFAULT_SLACK if get else 0
