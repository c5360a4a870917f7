"""eventfd(2), which the module os of Python 3.9 does not have."""

from __future__ import annotations

import os
import sys

from runrootless.linux.libc import c_uint, check, function

_eventfd = function("eventfd", c_uint)
_SIZE = 8
_ONE = (1).to_bytes(_SIZE, sys.byteorder)


def eventfd() -> int:
    """Return a new descriptor that counts from 0, close-on-exec, non-blocking. Raises OSError."""
    # EFD_CLOEXEC and EFD_NONBLOCK are these: <sys/eventfd.h>.
    return check(_eventfd(0, os.O_CLOEXEC | os.O_NONBLOCK), "eventfd")


def add(descriptor: int) -> None:
    """Count one more, so that the descriptor can be read. Raises OSError."""
    os.write(descriptor, _ONE)


def take(descriptor: int) -> int:
    """Return the count, and begin again at 0. Raises BlockingIOError where it is 0."""
    return int.from_bytes(os.read(descriptor, _SIZE), sys.byteorder)
