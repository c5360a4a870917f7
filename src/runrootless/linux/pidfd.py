"""Descriptors of other processes: pidfd_getfd(2)."""

from __future__ import annotations

import os

from runrootless.linux.libc import c_int, c_long, c_uint, check, function

_PIDFD_GETFD = 438
"""The same number on every machine."""

_syscall = function("syscall", c_long, c_int, c_int, c_uint, result=c_long)


def duplicate(process: int, descriptor: int) -> int:
    """Return a descriptor of what ``descriptor`` of another process refers to.

    ``process`` is the ID of a process, not of one of its threads. Raises OSError: EBADF,
    EPERM, ESRCH.
    """
    pidfd = os.pidfd_open(process)
    try:
        return check(_syscall(_PIDFD_GETFD, pidfd, descriptor, 0), "pidfd_getfd")
    finally:
        os.close(pidfd)
