"""What this process inherits and cannot work with, put right for it and for runtimes.

Standard descriptors that are closed would become sockets and files of ours, which a container
would then write to; with a umask that takes the owner's own bits away nothing that is made here
could be used.
"""

from __future__ import annotations

import os
import sys

_OWNERS_BITS = 0o700
_filled: list[int] = []
_mask = -1


def put_right() -> None:
    """Put /dev/null on closed standard descriptors, and keep the owner's bits out of the umask.

    Called before anything is opened here.
    """
    global _mask
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: open(2).
            if os.open(os.devnull, os.O_RDWR) == number:
                _filled.append(number)
                stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115
                setattr(sys, name, stream)
    mask = os.umask(0o077)
    os.umask(mask & ~_OWNERS_BITS)
    if mask & _OWNERS_BITS:
        _mask = mask


def give_back() -> None:
    """Give the program that this process becomes what was put right, as it was.

    What was put on closed descriptors is closed by execve(2).
    """
    if _mask >= 0:
        os.umask(_mask)


def pass_on() -> None:
    """Give a runtime, which could not work otherwise either, what was put right."""
    for number in _filled:
        os.set_inheritable(number, True)
