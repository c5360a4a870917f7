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
    """Set the limits of a process. Raises OSError: ESRCH, EPERM; ValueError for EINVAL."""
    resource.prlimit(pid, kind, (_signed(soft), _signed(hard)))


def _signed(value: int) -> int:
    # Python's module takes rlim_t as a signed number, with -1 as infinity.
    return value - (1 << 64) if value & _SIGN else value
