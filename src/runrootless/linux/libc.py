"""The C library, its functions, and errno as OSError.

By the C half of ctypes: the Python half takes two milliseconds to import, which an
agent that is waited for does not have, and adds nothing that is needed here.
"""

from __future__ import annotations

import os
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_PYTHONAPI,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    addressof,
    dlopen,
    get_errno,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap
    from typing import Any

    Number = _SimpleCData[int]
    Text = _SimpleCData[bytes]
    Pointer = _SimpleCData[int]
else:
    Number = Text = Pointer = _SimpleCData


_RTLD_NOW = 2


class c_int(Number):
    """The type int."""

    _type_ = "i"


class c_uint(Number):
    """The type unsigned int."""

    _type_ = "I"


class c_long(Number):
    """The type long, and as large ssize_t."""

    _type_ = "l"


class c_ulong(Number):
    """The type unsigned long, and as large size_t."""

    _type_ = "L"


class c_char(Text):
    """The type char."""

    _type_ = "c"


class c_char_p(Text):
    """A string that ends with a null byte."""

    _type_ = "z"


class c_void_p(Pointer):
    """Any address."""

    _type_ = "P"


class Function(CFuncPtr):
    """A function of the C library that returns an int and keeps errno for ``get_errno``.

    Other threads of Python run meanwhile. That is necessary for calls that may wait for a file
    system or for another process's memory (FUSE, NFS, userfaultfd(2)).
    """

    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = c_int


class QuickFunction(CFuncPtr):
    """As ``Function``, but no other thread of Python runs meanwhile.

    For calls that take less time than releasing the interpreter's lock and taking it again.
    """

    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO | FUNCFLAG_PYTHONAPI
    _restype_ = c_int


class SilentFunction(CFuncPtr):
    """As ``Function``, but errno is not kept, which takes a good part of a call's time."""

    _flags_ = FUNCFLAG_CDECL
    _restype_ = c_int


class Library:
    """A library by its path, with all that it needs from others; None is this process itself.

    Raises OSError where it cannot be loaded.
    """

    def __init__(self, path: str | None) -> None:
        self._handle = dlopen(path, _RTLD_NOW)  # type: ignore[arg-type]


_LIBRARY: Any = Library(None)


def function(name: str, *arguments: type, result: type = c_int) -> Any:
    """Return a function of the C library, an object of its own for each call of this.

    ``arguments`` are the types that what is passed is converted to; without any, ctypes
    objects, bytes (a char pointer) and int (an int) are passed as they are, which is quicker.
    """
    found: Any = Function((name, _LIBRARY))
    found.restype = result
    if arguments:
        found.argtypes = arguments
    return found


def quick_function(name: str) -> Any:
    """Return a function that is called often and waits for nothing, see ``QuickFunction``.

    It takes ctypes objects, bytes (a char pointer) and int (an int).
    """
    found: Any = QuickFunction((name, _LIBRARY))
    return found


def silent_function(name: str, library: Any = _LIBRARY) -> Any:
    """Return a function for where that a call has failed is enough to know.

    It takes what ``quick_function`` does, and may wait, see ``SilentFunction``.
    """
    found: Any = SilentFunction((name, library))
    return found


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
    "Library",
    "address",
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
