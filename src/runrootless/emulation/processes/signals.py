"""Signals to everybody: kill(2) with -1.

To the kernel all processes of the container are one user's, so that a user's ``kill -9 -1``
would end root's as well. Other signals are the kernel's: a call that waits for the agent
can be interrupted, and shells do not expect that of kill(2).
"""

from __future__ import annotations

import errno
import os

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.callers.credentials import CAP_KILL, Credentials
from runrootless.emulation.handlers import Handlers
from runrootless.linux.pidfd import send_signal
from runrootless.linux.processes import session, visible_processes

_SIGCONT = 18
_LAST = 64


class Signals(Handlers):
    """Handler of kill(2)."""

    def kill(self, call: Call) -> int | None:
        """kill(2) of all processes that the caller sees and may send signals to."""
        number = call.descriptor(1)
        sender = self._identity.of(call.pid)
        if not 0 < number <= _LAST or self._identity.may(call.pid, sender, CAP_KILL):
            return None
        require_valid(call)
        found = False
        for pid in visible_processes(call.pid):
            try:
                process = os.pidfd_open(pid)
            except OSError:
                continue
            try:
                found = True
                if self._may(call.pid, sender, pid, number):
                    send_signal(process, number)
            except OSError:
                # It has ended, or is not this user's outside either.
                pass
            finally:
                os.close(process)
        return 0 if found else -errno.ESRCH

    def _may(self, caller: int, sender: Credentials, pid: int, number: int) -> bool:
        """Return whether a process may be sent a signal. Raises OSError where it is gone."""
        real, _, saved, _ = self._identity.of(pid).uids
        if {real, saved} & set(sender.uids[:2]):
            return True
        return number == _SIGCONT and session(caller) == session(pid)
