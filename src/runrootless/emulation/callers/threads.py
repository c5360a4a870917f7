"""Threads whose credentials differ from those of their process.

The kernel keeps credentials per thread; only the C library makes setuid(2) and its
relatives change all threads. A resource limit is the process's, so a thread that
differs is marked by its timer slack (prctl(2), PR_SET_TIMERSLACK), which is each
thread's own and which the kernel passes on over clone, fork and exec: 50 microseconds
and some nanoseconds, which are an index into the table of credentials. The number of
the process tells that such threads exist, so nobody else's slack is ever looked at.

A thread can set its slack itself, by way of /proc, and so choose among the credentials in the
table. Therefore threads differ only where one could choose among all credentials anyway: in
a process that may change its user IDs at will. In others each change is the whole process's.
"""

from __future__ import annotations

import os

from runrootless.emulation.callers.credential_table import PLACE_MASK, CredentialTable, is_varied
from runrootless.emulation.callers.credentials import CAP_SETUID, SECURE_NO_ROOT, Credentials
from runrootless.linux.processes import set_timer_slack, threads, timer_slack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.callers.credential_table import State

DEFAULT_SLACK = 50_000
"""The timer slack of processes that have not set another, in nanoseconds."""

_FIRST_MARK = DEFAULT_SLACK + 1
_LAST_MARK = _FIRST_MARK + PLACE_MASK
_ROUNDS = 8


def _is_mark(slack: int) -> bool:
    return _FIRST_MARK <= slack <= _LAST_MARK


class Threads:
    """Finds and keeps the credentials of threads of one process that differ."""

    def __init__(self, table: CredentialTable) -> None:
        self._table = table
        self._different = 0

    def credentials(self, directory: bytes, base: Credentials) -> Credentials:
        """Return the credentials of a thread of a process whose threads differ.

        ``directory`` is its directory in /proc, and ``base`` what those without a mark have.
        """
        try:
            slack = timer_slack(directory)
        except (OSError, ValueError):
            slack = 0
        found = self._table.at(slack - _FIRST_MARK) if _is_mark(slack) else None
        return base if found is None else found

    def change(self, pid: int, number: int, new: Credentials, state: State, payer: int) -> int:
        """Mark one thread of several; return the number that its process is to have from then on.

        ``number`` is its present one, and ``payer`` pays for new entries. Where the new one is
        not varied, the marks mean nothing and are to be cleared once it is set. A thread that
        cannot be marked (real-time threads have no timer slack) takes the whole process along,
        and so does one of a process that cannot be anybody. Raises OSError: ENOMEM, ENOENT.
        """
        base = self._table.base(number)
        if not is_varied(number):
            if not _can_be_anybody(base):
                return self._table.encode(new, state, payer)
            self.clear(pid)
        if not self._mark(pid, new, base, payer):
            return self._table.encode(new, state, payer)
        if self._are_all(pid, base, new):
            return self._table.encode(new, state, payer)
        return self._table.encode_varied(base, state, payer)

    def _mark(self, pid: int, new: Credentials, base: Credentials, payer: int) -> bool:
        """Mark a thread, unless it is as the others; return whether that has worked."""
        slack = DEFAULT_SLACK if new == base else _FIRST_MARK + self._table.index(new, payer)
        try:
            set_timer_slack(pid, slack)
            return new == base or timer_slack(b"%d" % pid) == slack
        except PermissionError:
            return False

    def clear(self, pid: int) -> None:
        """Take the marks off a process's threads, those too that are made meanwhile.

        Raises OSError where it is gone.
        """
        # A process that makes threads without end is not followed without end.
        for _ in range(_ROUNDS):
            found = False
            for thread in threads(pid):
                try:
                    if self.is_marked(thread):
                        set_timer_slack(thread, DEFAULT_SLACK)
                        found = True
                except OSError:
                    # It has ended, or threads cannot be marked here.
                    pass
            if not found:
                return

    def is_marked(self, pid: int) -> bool:
        """Return whether a thread is marked. Raises OSError: EPERM, ENOENT."""
        return _is_mark(timer_slack(b"%d" % pid))

    def _are_all(self, pid: int, base: Credentials, credentials: Credentials) -> bool:
        """Return whether all threads of a process have these credentials."""
        ids = threads(pid)
        if self._different in ids:
            # It probably still is: of a thousand threads that change one after another,
            # not all are to be looked at each time.
            ids.remove(self._different)
            ids.insert(0, self._different)
        for thread in ids:
            directory = b"%d" % thread
            if self.credentials(directory, base) != credentials and os.path.exists(directory):
                self._different = thread
                return False
        return True


def _can_be_anybody(credentials: Credentials) -> bool:
    """Return whether a process with these could give itself any others."""
    if credentials.permitted & CAP_SETUID:
        return True
    return 0 in credentials.uids[:3] and not credentials.securebits & SECURE_NO_ROOT
