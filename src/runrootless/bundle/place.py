"""What the place of a root file system does to a container in it."""

from __future__ import annotations

import os
from errno import EOPNOTSUPP

_ATTRIBUTE = "user.runrootless.none"


def warning(rootfs: str) -> str:
    """Return what keeps programs of a root file system from being executed, or nothing."""
    try:
        flags = os.statvfs(rootfs).f_flag
    except OSError:
        return ""
    if not flags & os.ST_NOEXEC:
        return ""
    return (
        f"{rootfs} is on a file system mounted noexec: no program in it can be executed: "
        "move the bundle to another one"
    )


def remarks(rootfs: str) -> list[str]:
    """Return what is done otherwise because of the place, a line each."""
    lines = []
    try:
        if os.statvfs(rootfs).f_flag & os.ST_RDONLY:
            lines.append(f"{rootfs} is on a read-only file system: nothing in it can be changed")
        os.getxattr(rootfs, _ATTRIBUTE)
    except OSError as error:
        if error.errno == EOPNOTSUPP:
            lines.append(
                f"{rootfs} is on a file system without user attributes: owners and modes are "
                "kept in a side store, and do not move with copies of the files"
            )
    return lines
