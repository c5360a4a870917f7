"""Priorities of input and output: ioprio_set(2), <linux/ioprio.h>."""

from __future__ import annotations

import os

from runrootless.linux.libc import c_int, c_long, check, function
from runrootless.linux.syscall_numbers import NUMBERS

IOPRIO_WHO_PROCESS = 1
IOPRIO_WHO_PGRP = 2
IOPRIO_WHO_USER = 3

_CLASS_SHIFT = 13
# Over PID_MAX_LIMIT of <linux/threads.h>.
_NOBODY = 0x7FFFFFFF
_REAL_TIME, _BEST_EFFORT, _IDLE = 1, 2, 3
_OWN = NUMBERS[os.uname().machine]
_SET, _GET = _OWN["ioprio_set"], _OWN["ioprio_get"]

_syscall = function("syscall", c_long, c_int, c_int, c_int, result=c_long)


def require_io_priority(priority: int) -> None:
    """Raise OSError for a class and level that nobody here may have: EINVAL, EPERM."""
    try:
        # The kernel looks at them before it looks for the process.
        set_io_priority(_NOBODY, priority)
    except ProcessLookupError:
        pass


def set_io_priority(thread: int, priority: int) -> None:
    """Set a thread's class and level. Raises OSError: EINVAL, EPERM, ESRCH."""
    check(_syscall(_SET, IOPRIO_WHO_PROCESS, thread, priority), "ioprio_set")


def effective_io_priority(thread: int) -> int:
    """Return a thread's class and level; less is more urgent.

    Of one that has set none, what its scheduling class and nice value make of it. Raises
    OSError: EPERM, ESRCH.
    """
    found: int = check(_syscall(_GET, IOPRIO_WHO_PROCESS, thread, 0), "ioprio_get")
    if found >> _CLASS_SHIFT:
        return found
    policy = os.sched_getscheduler(thread)
    kind = _BEST_EFFORT
    if policy == os.SCHED_IDLE:
        kind = _IDLE
    elif policy in (os.SCHED_FIFO, os.SCHED_RR):
        kind = _REAL_TIME
    level = (os.getpriority(os.PRIO_PROCESS, thread) + 20) // 5
    return kind << _CLASS_SHIFT | level
