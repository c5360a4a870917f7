"""A side store: records of files that cannot carry them, in journals (see ``journal.py``).

Records that last are in a file beside the rootfs, which the agents of all containers on it
share. Records that end with the container, those of files on anonymous devices (tmpfs,
proc), are in a memfd, where a new worker finds them. The store of a user, for ``emulate``,
keeps all records in its file: there such a device may be NFS.

Keys are device, inode and time of birth, since new files get the inode numbers of deleted
ones. The device number of the rootfs itself is kept as 0, since it may be another one
after the next boot.
"""

from __future__ import annotations

import os
import struct
import zlib
from _thread import allocate_lock

from runrootless.emulation.stores.journal import Contents, Journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_CHECK = struct.Struct("=I")
CHECK_SIZE = _CHECK.size
"""How many bytes longer a line is with its checksum."""

NO_DEVICE = 0xFFFFFFFFFFFFFFFF
"""The device in a line that is about no file: a journal's first one."""


def with_checksum(line: bytes) -> bytes:
    """Return a line with its checksum at the end."""
    return line + _CHECK.pack(zlib.crc32(line))


def without_checksum(line: bytes) -> bytes | None:
    """Return a line without its checksum, or None if that is wrong."""
    content = line[:-CHECK_SIZE]
    return content if _CHECK.pack(zlib.crc32(content)) == line[-CHECK_SIZE:] else None


class SideStore:
    """What all stores have in common; what their lines say is theirs.

    Made, and given its file, before the workers that use it are forked; each of them opens
    it. From then on all threads of a worker may use it.
    """

    file_limit = 0
    """A file that could not be compacted is to have no more bytes than these."""

    def __init__(self, name: str) -> None:
        self._lock = allocate_lock()
        self._memory = os.memfd_create(name)
        self._file = -1
        self._file_is_writable = False
        self._root_device = -1
        self._lasting: Mapping[int, int] | None = None
        self._passing = self._journal(self._memory, True)
        self._kept = self._passing

    def descriptors(self) -> list[int]:
        """Return the descriptors that it needs, of those that are open by now."""
        return [fd for fd in (self._memory, self._file) if fd >= 0]

    def use(self, file: int, is_writable: bool = True) -> None:
        """Keep what is to last in the file that is open as ``file``, for reading and writing.

        As long as there is none, that is kept as long as this store. Where the file is not
        writable, what is kept cannot be changed: EROFS.
        """
        self._file = file
        self._file_is_writable = is_writable

    def open(self, root_device: int, lasting: Mapping[int, int] | None = None) -> None:
        """Begin to use the store, in a worker that has not used it so far.

        ``root_device`` is st_dev of the rootfs. Where other file systems outlast whoever uses
        the store, ``lasting`` gives numbers for those of them whose st_dev does not last.
        Raises OSError: EIO.
        """
        self._root_device = root_device
        self._lasting = lasting
        self._passing = self._journal(self._memory, True)
        self._passing.look()
        self._kept = self._passing
        if self._file >= 0:
            self._kept = self._journal(self._file, False)

    def lasts(self, device: int) -> bool:
        """Return whether what is kept of files on a device lasts as long as they do.

        Anonymous devices are taken for the container's own: they are gone with it.
        """
        _, journal = self._place(device)
        if journal is self._kept is self._passing:
            return self.is_anonymous(device)
        return journal is self._passing or journal.writable

    def is_anonymous(self, device: int) -> bool:
        """Return whether a device is one of no disk, nor of the rootfs, nor one that lasts."""
        key_device = self._key_device(device)
        return key_device == device != 0 and not os.major(device)

    def _contents(self) -> Contents:
        raise NotImplementedError

    def _journal(self, fd: int, is_private: bool) -> Journal:
        writable = is_private or self._file_is_writable
        return Journal(self._contents(), fd, is_private, self.file_limit, writable)

    def _key_device(self, device: int) -> int:
        if device == self._root_device:
            return 0
        return self._lasting.get(device, device) if self._lasting else device

    def _place(self, device: int) -> tuple[int, Journal]:
        """Return a device as lines have it, and where they are about files on it."""
        key_device = self._key_device(device)
        if key_device and self._lasting is None and not os.major(key_device):
            return key_device, self._passing
        return key_device, self._kept
