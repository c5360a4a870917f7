"""Attributes of the calling process: prctl(2)."""

from __future__ import annotations

from runrootless.linux.libc import c_char_p, c_int, c_ulong, check, function

_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38

_prctl = function("prctl", c_int, c_char_p, c_ulong, c_ulong, c_ulong)
_prctl_number = function("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)


def set_name(name: str) -> None:
    """Set the name that ps(1) shows for the calling thread; 15 bytes count."""
    check(_prctl(_PR_SET_NAME, name.encode(), 0, 0, 0), "prctl")


def set_no_new_privileges() -> None:
    """Let no execve(2) give this process privileges from now on; so it may install filters."""
    check(_prctl_number(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
