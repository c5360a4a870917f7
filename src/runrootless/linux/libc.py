"""The C library through ctypes: loading it, and turning errno into OSError."""

from __future__ import annotations

import ctypes
import os

LIBRARY = ctypes.CDLL(None, use_errno=True)
"""The C library of this process; every function in it keeps errno for ``ctypes.get_errno``."""

syscall = LIBRARY.syscall
syscall.restype = ctypes.c_long


def check(result: int, *what: str | bytes) -> int:
    """Return ``result``, or raise OSError with the current errno if it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *what)
    return result
