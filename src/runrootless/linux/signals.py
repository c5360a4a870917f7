"""Signal dispositions: rt_sigaction(2), signal(7)."""

from __future__ import annotations

import os

from runrootless.linux.libc import c_long, check, function

_NUMBER = {"x86_64": 13, "aarch64": 134}[os.uname().machine]
_SIGKILL = 9
_SIGCHLD = 17
_SIGSTOP = 19
_LAST = 64
_SET_SIZE = 8
# struct sigaction of the kernel begins with the handler: SIG_DFL is 0, SIG_IGN 1.
_SIZE = 32
_DEFAULT = bytes(_SIZE)
_IGNORED = b"\1" + bytes(_SIZE - 1)

_syscall = function("syscall")


def ignore_all() -> None:
    """Ignore every signal that can be ignored, but for SIGCHLD, which gets its default.

    Those for faults as well: a fault of this process's own ends it nevertheless. By the system
    call, since the C library keeps two of the real-time signals for itself. Children inherit it.
    """
    for number in range(1, _LAST + 1):
        if number not in (_SIGKILL, _SIGSTOP):
            _set(number, _DEFAULT if number == _SIGCHLD else _IGNORED)


def _set(number: int, action: bytes) -> None:
    size = c_long(_SET_SIZE)
    check(_syscall(c_long(_NUMBER), c_long(number), action, None, size), "rt_sigaction")
