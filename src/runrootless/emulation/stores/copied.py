"""Whether a side store is a copy: then what it says is about inodes that are not there.

The first line of a store's file names the inode that the file itself has.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

MASK = (1 << 63) - 1
"""Of an inode number in such a line: there it has a sign."""

_BYTE_ORDER: Literal["little", "big"] = sys.byteorder
# Both begin with the device, which is none, and a number; base64 has four letters for three bytes.
_BEGINNING, _BEGINNING_IN_BASE64 = b"\xff" * 8, b"\n" + b"/" * 8
_SIZE = 24
_SIZE_IN_BASE64 = _SIZE // 3 * 4


def is_copied(fd: int) -> bool:
    """Return whether an open file is a copy of a side store. Raises OSError.

    False where that cannot be told: those of earlier versions do not say.
    """
    data = os.pread(fd, 1 + _SIZE_IN_BASE64, 0)
    if data.startswith(_BEGINNING_IN_BASE64):
        from binascii import Error, a2b_base64

        try:
            data = a2b_base64(data)
        except Error:
            return False
    elif not data.startswith(_BEGINNING):
        return False
    inode = int.from_bytes(data[16:_SIZE], _BYTE_ORDER)
    return inode not in (0, os.fstat(fd).st_ino & MASK)


def warning(path: str) -> str:
    """Return what a user is to be told of a copy, in one line."""
    return (
        f"{path} is a copy: owners of symlinks and special files, and device nodes, are not in "
        "it any more, and are root's: copy bundles by `runrootless export OLD - | runrootless "
        "bundle - NEW`"
    )
