"""Namespaces: setns(2), unshare(2), <linux/sched.h>."""

from __future__ import annotations

import os
from fcntl import ioctl

from runrootless.linux.libc import check, function

# <linux/nsfs.h>.
_NS_GET_USERNS = 0xB701

_setns = function("setns")
_unshare = function("unshare")

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWUSER = 0x10000000


def setns(fd: int, kind: int) -> None:
    """Join the namespace that ``fd`` refers to; ``kind`` is its CLONE_NEW* constant.

    Raises OSError as setns(2) says.
    """
    check(_setns(fd, kind), "setns")


def owner(fd: int) -> int:
    """Return a descriptor of the user namespace that a namespace belongs to: ioctl_ns(2).

    Raises OSError: EPERM where it is not one of the caller's, nor below that.
    """
    return ioctl(fd, _NS_GET_USERNS)


def unshare(flags: int) -> None:
    """Stop sharing with other processes and threads what the CLONE_* ``flags`` name.

    Raises OSError as unshare(2) says.
    """
    check(_unshare(flags), "unshare")


def become_root(flags: int = 0) -> None:
    """Enter a new user namespace in which the caller is root, and namespaces of other ``flags``.

    Raises OSError as unshare(2) says, or where the IDs cannot be mapped: user_namespaces(7).
    """
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER | flags)
    # Without "deny", an unprivileged gid_map is refused.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
