"""Priorities of processes by user: setpriority(2), getpriority(2), ioprio_set(2), ioprio_get(2).

The rules are those of kernel/sys.c, block/ioprio.c and security/commoncap.c. Whether a priority
may be raised is the kernel's to say in any case.
"""

from __future__ import annotations

import errno
import os

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.callers.credentials import CAP_SYS_NICE, Credentials
from runrootless.emulation.handlers import Handlers
from runrootless.linux.priorities import (
    IOPRIO_WHO_PGRP,
    IOPRIO_WHO_PROCESS,
    IOPRIO_WHO_USER,
    effective_io_priority,
    require_io_priority,
    set_io_priority,
)
from runrootless.linux.processes import (
    find_process,
    group_members,
    seen_processes,
    status_fields,
    threads,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIGN = 0x80000000
_LOWEST, _HIGHEST = 19, -20


class Priorities(Handlers):
    """Handlers of these calls."""

    def setpriority(self, call: Call) -> int | None:
        """setpriority(2): EPERM for processes of other users."""
        which = call.arguments[0]
        nice = max(_HIGHEST, min(_LOWEST, call.descriptor(2)))
        own = self._identity.of(call.pid)

        def is_permitted(other: Credentials) -> bool:
            is_own = own.uids[1] in other.uids[:2]
            return self._is_permitted(call, own, other, is_own)

        if which == os.PRIO_USER:
            users = list(self._threads_of_user(call, own))
        elif which in (os.PRIO_PROCESS, os.PRIO_PGRP):
            is_group = which == os.PRIO_PGRP
            found = self._others(call, is_group, is_permitted)
            if found is None:
                return None
            users = found
        else:
            return None
        require_valid(call)
        result = -errno.ESRCH
        for thread in users:
            # A thread that cannot be changed is reported, and the others are changed nevertheless.
            try:
                if not is_permitted(self._identity.of(thread)):
                    result = -errno.EPERM
                    continue
                os.setpriority(os.PRIO_PROCESS, thread, nice)
                if result == -errno.ESRCH:
                    result = 0
            except ProcessLookupError:
                pass
            except OSError as error:
                result = -(error.errno or errno.EPERM)
        return result

    def getpriority(self, call: Call) -> int:
        """getpriority(2) of a user's processes: the highest, as the system call counts."""
        own = self._identity.of(call.pid)
        nices = []
        for thread in self._threads_of_user(call, own):
            try:
                nices.append(os.getpriority(os.PRIO_PROCESS, thread))
            except ProcessLookupError:
                # It has ended.
                pass
        return _LOWEST + 1 - min(nices) if nices else -errno.ESRCH

    def ioprio_set(self, call: Call) -> int | None:
        """ioprio_set(2): as setpriority(2), but for that the first error ends it."""
        which, _, priority = call.arguments[:3]
        own = self._identity.of(call.pid)

        def is_permitted(other: Credentials) -> bool:
            is_own = other.uids[0] in own.uids[:2]
            return self._is_permitted(call, own, other, is_own)

        if which in (IOPRIO_WHO_PROCESS, IOPRIO_WHO_PGRP):
            is_group = which == IOPRIO_WHO_PGRP
            found = self._others(call, is_group, is_permitted)
            if found is None:
                return None
            require_io_priority(priority)
            return -errno.EPERM
        if which != IOPRIO_WHO_USER:
            return None
        require_io_priority(priority)
        users = list(self._threads_of_user(call, own))
        require_valid(call)
        result = -errno.ESRCH
        for thread in users:
            if not is_permitted(self._identity.of(thread)):
                return -errno.EPERM
            try:
                set_io_priority(thread, priority)
                result = 0
            except ProcessLookupError:
                pass
        return result

    def ioprio_get(self, call: Call) -> int:
        """ioprio_get(2) of a user's processes: the highest."""
        own = self._identity.of(call.pid)
        found = []
        for thread in self._threads_of_user(call, own):
            try:
                found.append(effective_io_priority(thread))
            except ProcessLookupError:
                # It has ended.
                pass
        return min(found) if found else -errno.ESRCH

    def _is_permitted(self, call: Call, own: Credentials, other: Credentials, is_own: bool) -> bool:
        # cap_safe_nice() in security/commoncap.c: of those, too, who may more than the caller.
        if is_own and not other.permitted & ~own.permitted:
            return True
        return self._identity.may(call.pid, own, CAP_SYS_NICE)

    def _others(
        self, call: Call, is_group: bool, is_permitted: Callable[[Credentials], bool]
    ) -> list[int] | None:
        """Return the threads that a call is about, None where the caller may change them all.

        Raises OSError: ESRCH.
        """
        number = call.arguments[1]
        if number & _SIGN:
            # The kernel knows no such process.
            return None
        if is_group:
            members = group_members(call.pid, number)
            about = [thread for pid in members for thread in _threads(pid)]
        else:
            about = [find_process(call.pid, number)]
        others = [thread for thread in about if thread != call.pid]
        is_plain = all(is_permitted(self._identity.of(thread)) for thread in others)
        return None if is_plain else about

    def _threads_of_user(self, call: Call, own: Credentials) -> Iterator[int]:
        """Return the threads whose real user ID is what the call names, 0 for the caller's."""
        user = call.arguments[1] or own.uids[0]
        # Where the caller sees processes of users outside, these are nobody's.
        ours = b"%d" % os.getuid()
        for pid, _, text in seen_processes(call.pid):
            if status_fields(text, b"Uid")[0] == ours:
                for thread in _threads(pid):
                    if self._identity.of(thread).uids[0] == user:
                        yield thread


def _threads(pid: int) -> list[int]:
    try:
        return threads(pid)
    except OSError:
        # It has ended.
        return []
