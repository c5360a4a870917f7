"""Resource limits of other processes: prlimit(2), <sys/resource.h>."""

from __future__ import annotations

import resource

RLIMIT_RTTIME = 15
"""Microseconds of real-time scheduling without a blocking call; absent from Python's module."""

INFINITY = 0xFFFFFFFFFFFFFFFF
"""``RLIM64_INFINITY``."""

_SIGN = 1 << 63


def get_soft_limit(pid: int, kind: int) -> int:
    """Return the soft limit of a process, an unsigned 64-bit number.

    Raises OSError: ESRCH, EPERM.
    """
    return resource.prlimit(pid, kind)[0] & INFINITY


def set_soft_limit(pid: int, kind: int, soft: int, hard: int) -> None:
    """Set the limits of a process, 0 for this one: unsigned 64-bit numbers.

    Raises OSError: ESRCH, EPERM; ValueError for EINVAL.
    """
    try:
        resource.prlimit(pid, kind, (_known(soft), _known(hard)))
    except OverflowError:
        # Before late releases of Python 3.13 and 3.14 large ones are negative; later these are
        # refused.
        resource.prlimit(pid, kind, (_signed(soft), _signed(hard)))


def _known(value: int) -> int:
    return resource.RLIM_INFINITY if value == INFINITY else value


def _signed(value: int) -> int:
    return value - (1 << 64) if value & _SIGN else value
