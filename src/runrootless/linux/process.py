"""Attributes of the calling process: prctl(2), capset(2)."""

from __future__ import annotations

import errno
import struct

from runrootless.linux.libc import c_char_p, c_int, c_ulong, check, function, get_errno

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
_PR_GET_NO_NEW_PRIVS = 39
# <linux/capability.h>: the version, and the process itself.
_CAPABILITY_HEADER = struct.pack("Ii", 0x20080522, 0)

_capset = function("capset")
_prctl = function("prctl", c_int, c_char_p, c_ulong, c_ulong, c_ulong)
_prctl_number = function("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)


def set_name(name: str) -> None:
    """Set the name that ps(1) shows for the calling thread; 15 bytes count."""
    check(_prctl(_PR_SET_NAME, name.encode(), 0, 0, 0), "prctl")


def become_subreaper() -> None:
    """Become the parent of all descendants whose parent ends."""
    check(_prctl_number(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def set_parent_death_signal(number: int) -> None:
    """Get this signal when the parent ends; it is kept over most execve(2)."""
    check(_prctl_number(_PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl")


def set_dumpable(dumpable: bool) -> None:
    """Say whether processes of the same user may look into this one: PR_SET_DUMPABLE.

    See ptrace(2), "Ptrace access mode checking".
    """
    check(_prctl_number(_PR_SET_DUMPABLE, dumpable, 0, 0, 0), "prctl")


def drop_capabilities() -> None:
    """Give up all capabilities: permitted, effective, inheritable and with them ambient."""
    set_capabilities(0, 0)


def set_capabilities(effective: int, permitted: int) -> None:
    """Give up all capabilities, which are bits, but these: capset(2), the calling thread's.

    Raises OSError: EPERM for one that is not permitted now.
    """
    sets = (effective, permitted, 0)
    low, high = ([value >> shift & 0xFFFFFFFF for value in sets] for shift in (0, 32))
    check(_capset(_CAPABILITY_HEADER, struct.pack("=6I", *low, *high)), "capset")


def empty_bounding_set() -> None:
    """Let no execve(2) give this process a capability.

    Raises OSError: EPERM without CAP_SETPCAP.
    """
    capability = 0
    # The kernel says EINVAL of those that it does not know.
    while _prctl_number(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    if get_errno() != errno.EINVAL:
        check(-1, "prctl")


def set_no_new_privileges() -> None:
    """Let no execve(2) give this process privileges from now on; so it may install filters."""
    check(_prctl_number(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def has_no_new_privileges() -> bool:
    """Return whether that is so: PR_GET_NO_NEW_PRIVS."""
    return check(_prctl_number(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), "prctl") != 0
