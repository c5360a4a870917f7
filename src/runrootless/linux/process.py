"""Attributes of the calling process: prctl(2), capset(2)."""

from __future__ import annotations

import struct

from runrootless.linux.libc import c_char_p, c_int, c_ulong, check, function

_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
# <linux/capability.h>: the version, and the process itself.
_CAPABILITY_HEADER = struct.pack("Ii", 0x20080522, 0)

_capset = function("capset")
_prctl = function("prctl", c_int, c_char_p, c_ulong, c_ulong, c_ulong)
_prctl_number = function("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)


def set_name(name: str) -> None:
    """Set the name that ps(1) shows for the calling thread; 15 bytes count."""
    check(_prctl(_PR_SET_NAME, name.encode(), 0, 0, 0), "prctl")


def open_to_its_user() -> None:
    """Let processes of the same user and namespaces see this one's descriptors, below /proc.

    For that it gives up all capabilities, and is dumpable: ptrace(2), "Ptrace access mode
    checking".
    """
    check(_capset(_CAPABILITY_HEADER, bytes(24)), "capset")
    check(_prctl_number(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")
