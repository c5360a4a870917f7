"""Namespaces and roots: setns(2), unshare(2), chroot(2), <linux/sched.h>."""

from __future__ import annotations

from runrootless.linux.libc import check, function

_setns = function("setns")
_unshare = function("unshare")

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000


def setns(fd: int, kind: int) -> None:
    """Join the namespace that ``fd`` refers to; ``kind`` is its CLONE_NEW* constant.

    Raises OSError as setns(2) says.
    """
    check(_setns(fd, kind), "setns")


def unshare(flags: int) -> None:
    """Leave the namespaces named by ``flags`` for new ones. Raises OSError as unshare(2) says."""
    check(_unshare(flags), "unshare")
