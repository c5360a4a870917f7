"""Special files: mknod(2). A device node is a whiteout whose record tells what it is.

A whiteout, the character device 0:0, is the only device that everybody may make. It
cannot be opened, and directory listings show it as a character device. A file system
that has none (overlayfs, FUSE), or whose files the side store cannot keep records of, gets
a regular file in its place, with the record in an attribute.
"""

from __future__ import annotations

import os
import stat

from runrootless.emulation.call import Call
from runrootless.emulation.callers.credentials import CAP_MKNOD
from runrootless.emulation.files.creation import Creation
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.owners.ownership import Ownership
from runrootless.emulation.stores.record import NOTHING, Record
from runrootless.linux.files import AT_FDCWD

_DEVICE_TYPES = (stat.S_IFCHR, stat.S_IFBLK)
_TYPES = (*_DEVICE_TYPES, 0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK)


class Nodes(Handlers):
    """Handlers of the mknod family."""

    def __init__(self, shared: Shared, creation: Creation) -> None:
        super().__init__(shared)
        self._creation = creation

    def mknod(self, call: Call) -> int | None:
        """mknod(2)."""
        path, mode, device = call.arguments[:3]
        return self._mknod(call, AT_FDCWD, path, mode, device)

    def mknodat(self, call: Call) -> int | None:
        """mknodat(2)."""
        _, path, mode, device = call.arguments[:4]
        return self._mknod(call, call.descriptor(0), path, mode, device)

    def _mknod(self, call: Call, directory: int, path: int, mode: int, device: int) -> int | None:
        mode &= 0xFFFF
        device &= 0xFFFFFFFF
        kind = stat.S_IFMT(mode)
        # A whiteout (character device 0:0) is anyone's to make, as the other types are.
        is_device = kind in _DEVICE_TYPES and (kind == stat.S_IFBLK or device != 0)
        if kind not in _TYPES:
            return None
        with self._paths.find(call, directory, path, False) as found:
            if not found.has_room() or found.slash:
                # The kernel looks there before at privileges.
                return None
            if is_device:
                credentials = self._identity.of(call.pid)
                if not self._identity.may(call.pid, credentials, CAP_MKNOD):
                    # So says the kernel to all in a user namespace, after what comes before it.
                    return None
            record = self._creation.owner(call, found.parent)
            kept = self._creation.mode(call, found.parent, mode)
            if is_device or kept != mode:
                record = record or NOTHING
            if record is None:
                return None
            if is_device:
                record = Record(record.uid, record.gid, kind, device)
                return self._creation.make(
                    call,
                    found,
                    record,
                    lambda: make_device(
                        self._ownership, found.parent, found.name, stat.S_IMODE(kept)
                    ),
                )
            return self._creation.make(
                call,
                found,
                record,
                lambda: os.mknod(found.name, kept, device, dir_fd=found.parent),
            )


def make_device(ownership: Ownership, parent: int, name: bytes, permissions: int) -> None:
    """Make what stands for a device node in a directory, without its record. Raises OSError."""
    if ownership.lasts_beside(os.fstat(parent).st_dev):
        try:
            os.mknod(name, permissions | stat.S_IFCHR, 0, dir_fd=parent)
            return
        except OSError:
            pass
    os.mknod(name, permissions | stat.S_IFREG, dir_fd=parent)
