"""Other processes by descriptor: pidfd_getfd(2), pidfd_send_signal(2). kcmp(2)."""

from __future__ import annotations

import errno
import os

from runrootless.linux.libc import c_int, c_long, c_ulong, check, function

# The same numbers on every machine.
_PIDFD_SEND_SIGNAL = 424
_PIDFD_GETFD = 438
_KCMP = {"x86_64": 312, "aarch64": 272}
_KCMP_FILE = 0

# A pidfd; a descriptor or a signal; a pointer or flags; flags.
_syscall = function("syscall", c_long, c_int, c_int, c_ulong, c_ulong, result=c_long)
# Two processes, what is compared, and which of it.
_kcmp = function("syscall", c_long, c_int, c_int, c_int, c_ulong, c_ulong, result=c_long)


def duplicate(process: int, descriptor: int) -> int:
    """Return a descriptor of what ``descriptor`` of another process refers to.

    ``process`` is the ID of a process, not of one of its threads. Raises OSError: EBADF,
    EPERM, ESRCH.
    """
    pidfd = os.pidfd_open(process)
    try:
        return take(pidfd, descriptor)
    finally:
        os.close(pidfd)


def take(pidfd: int, descriptor: int) -> int:
    """Return a descriptor of what ``descriptor`` of the process of ``pidfd`` refers to.

    Raises OSError: EBADF, EPERM, ESRCH.
    """
    return check(_syscall(_PIDFD_GETFD, pidfd, descriptor, 0, 0), "pidfd_getfd")


def process_of(pidfd: int) -> int:
    """Return the process that ``pidfd`` refers to, as the working directory, a /proc, has it.

    Raises OSError: EBADF where it refers to none, ESRCH where that has ended.
    """
    with open(f"self/fdinfo/{pidfd}", "rb", buffering=0) as file:
        _, found, rest = file.readall().partition(b"\nPid:")
    if not found:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    number = int(rest.split(maxsplit=1)[0])
    if number <= 0:
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
    return number


def has_same(process: int, descriptor: int, fd: int) -> bool:
    """Return whether a descriptor of another process is of the same open file as ``fd`` here.

    False also where that cannot be told: the kernel is built without kcmp(2).
    """
    try:
        other = duplicate(process, descriptor)
    except OSError:
        return False
    own = os.getpid()
    try:
        return bool(_kcmp(_KCMP[os.uname().machine], own, own, _KCMP_FILE, other, fd) == 0)
    finally:
        os.close(other)


def send_signal(pidfd: int, number: int) -> None:
    """Send a signal to the process that ``pidfd`` refers to. Raises OSError: EPERM, ESRCH."""
    # Without siginfo, as kill(2) does.
    check(_syscall(_PIDFD_SEND_SIGNAL, pidfd, number, 0, 0), "pidfd_send_signal")
