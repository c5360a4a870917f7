"""The C library, its functions, and errno as OSError."""

from __future__ import annotations

import os
from ctypes import (
    CDLL,
    PyDLL,
    addressof,
    c_char,
    c_char_p,
    c_int,
    c_long,
    c_uint,
    c_ulong,
    c_void_p,
    get_errno,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap
    from typing import Any

_LIBRARY = CDLL(None, use_errno=True)
# No other thread of Python runs during a call.
_QUICK = PyDLL(None, use_errno=True)
# To keep errno takes a good part of a call's time.
_SILENT = CDLL(None)


def function(name: str, *arguments: type, result: type = c_int) -> Any:
    """Return a function of the C library, an object of its own for each call of this.

    It keeps errno for ``get_errno``. Other threads of Python run meanwhile. That is necessary
    for calls that may wait for a file system or for another process's memory (FUSE, NFS,
    userfaultfd(2)).

    ``arguments`` are the types that what is passed is converted to; without any, ctypes
    objects, bytes (a char pointer) and int (an int) are passed as they are, which is quicker.
    """
    found: Any = _LIBRARY[name]
    found.restype = result
    if arguments:
        found.argtypes = arguments
    return found


def quick_function(name: str) -> Any:
    """Return a function that is called often and waits for nothing.

    No other thread of Python runs meanwhile: the call takes less time than releasing the
    interpreter's lock and taking it again. It takes ctypes objects, bytes (a char pointer) and int
    (an int).
    """
    return _QUICK[name]


def silent_function(name: str, library: CDLL = _SILENT) -> Any:
    """Return a function for where that a call has failed is enough to know: it keeps no errno.

    It takes what ``quick_function`` does, and may wait.
    """
    return library[name]


def address(buffer: bytearray | mmap) -> int:
    """Return where a buffer's bytes are; it must not be resized from now on."""
    return addressof((c_char * len(buffer)).from_buffer(buffer))


def check(result: int, *what: str | bytes) -> int:
    """Return ``result``, or raise OSError with the current errno if it is negative."""
    if result < 0:
        number = get_errno()
        raise OSError(number, os.strerror(number), *what)
    return result


__all__ = [
    "CDLL",
    "address",
    "c_char",
    "c_char_p",
    "c_int",
    "c_long",
    "c_uint",
    "c_ulong",
    "c_void_p",
    "check",
    "function",
    "get_errno",
    "quick_function",
    "silent_function",
]
