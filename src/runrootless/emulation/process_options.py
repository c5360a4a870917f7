"""Options of processes that depend on who they are: prctl(2)."""

from __future__ import annotations

import errno

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.table import (
    PR_GET_DUMPABLE,
    PR_GET_NO_NEW_PRIVS,
    PR_GET_TIMERSLACK,
    PR_SET_DUMPABLE,
    PR_SET_KEEPCAPS,
    PR_SET_TIMERSLACK,
)
from runrootless.emulation.threads import DEFAULT_SLACK


class ProcessOptions(Handlers):
    """Handler of prctl(2)."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._options = {
            PR_SET_KEEPCAPS: self._set_keep_capabilities,
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

    def _set_keep_capabilities(self, call: Call) -> None:
        value = call.arguments[1]
        if value <= 1:
            old = self._identity.of(call.pid)
            self._identity.change(call, old, old.with_keep(bool(value)))

    def _get_no_new_privileges(self, call: Call) -> int:
        # The flag is the engine's own, and set-user-ID files work all the same.
        return -errno.EINVAL if any(call.arguments[1:5]) else 0

    def _set_dumpable(self, call: Call) -> None:
        value = call.arguments[1]
        if value <= 1:
            soft, hard, _ = self._identity.state(call.pid)
            require_valid(call)
            self._identity.set_state(call.pid, (soft, hard, bool(value)))

    def _get_dumpable(self, call: Call) -> int | None:
        _, _, dumpable = self._identity.state(call.pid)
        return None if dumpable else 0

    def _timer_slack(self, call: Call) -> int | None:
        """Hide the slack of a thread that is marked by it, and keep it."""
        if not self._identity.is_marked(call.pid):
            return None
        get = call.arguments[0] & 0xFFFFFFFF == PR_GET_TIMERSLACK
        return DEFAULT_SLACK if get else 0
