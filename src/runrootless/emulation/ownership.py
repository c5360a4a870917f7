"""Who owns a file: finding and keeping the record of it.

Regular files and directories carry the record in an extended attribute; no attribute
means 0:0. Files that cannot carry user attributes (symlinks, fifos, sockets, and all
on some file systems) are recorded in the side store, but for those on file systems that
the container has mounted itself (tmpfs): there the agent may give any file an attribute of
``security.*``, which goes with the file, where inode numbers are not used again.
"""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.call import failure
from runrootless.emulation.owner_store import OwnerStore
from runrootless.emulation.record import NOTHING, Record, decode, encode
from runrootless.linux.files import AT_SYMLINK_NOFOLLOW, Files

ATTRIBUTE = b"user.rootlesscontainers"

# To the container all of ``security.*`` is kept elsewhere, so this one is neither seen nor set.
_OWN_ATTRIBUTE = b"security.rootlesscontainers"

_NO_ROOM = (-errno.ENOSPC, -errno.EDQUOT, -errno.ENOMEM)
_CACHE_LIMIT = 4096
_EXPECTED_LIMIT = 64
_TYPE_MASK = 0o170000
_FILE_TYPES_WITH_ATTRIBUTES = (stat.S_IFREG, stat.S_IFDIR)
_TYPES_OF_DEVICES = (stat.S_IFCHR, stat.S_IFREG)


class Ownership:
    """Finds and keeps the records of files, wherever they are kept."""

    def __init__(self, files: Files, store: OwnerStore) -> None:
        self._files = files
        self._store = store
        self._expected: list[tuple[bytes, int, Record]] = []
        self._decoded: dict[bytes, Record | None] = {}

    def find(self, name: bytes, flags: int, mode: int, device: int, inode: int) -> Record | None:
        """Return the record of the file that was found as ``name``, or None.

        ``flags`` tells by AT_SYMLINK_NOFOLLOW how ``name`` is resolved; ``mode``,
        ``device`` and ``inode`` are what stat(2) said of the file.
        """
        return self.find_with_place(name, flags, mode, device, inode)[0]

    def find_with_place(
        self, name: bytes, flags: int, mode: int, device: int, inode: int
    ) -> tuple[Record | None, bool]:
        """Return the same, and whether the file itself carries its record or would do so.

        Then st_ctime changes with the record.
        """
        if mode & _TYPE_MASK in _FILE_TYPES_WITH_ATTRIBUTES:
            value = self._files.getxattr(name, ATTRIBUTE, flags)
            if value.__class__ is bytes:
                try:
                    return self._decoded[value], True
                except KeyError:
                    return self._decode(value), True
            if value == -errno.ENODATA:
                return None, True
        return self._find_beside(name, flags, mode, device, inode), False

    def _find_beside(
        self, name: bytes, flags: int, mode: int, device: int, inode: int
    ) -> Record | None:
        if self._expected:
            self._settle()
        if self._store.is_anonymous(device):
            value = self._files.getxattr(name, _OWN_ATTRIBUTE, flags)
            if value.__class__ is bytes:
                return self._decode(value)
        found = self._store.find(device, inode)
        if found is None:
            return None
        birth, record = found
        if record.device_type and mode & _TYPE_MASK not in _TYPES_OF_DEVICES:
            # On a file system without times of birth: the inode number is another file's by now.
            return None
        return record if birth == self._files.birth_time(name, flags) else None

    def keep(self, handle: bytes, mode: int, device: int, inode: int, record: Record) -> None:
        """Keep the record of the file that ``handle`` leads to.

        ``handle`` is a name that ends in a /proc link to an open descriptor, so that
        it is followed just once. Raises OSError as chown(2) would: EROFS, EPERM, ENOSPC.
        """
        if stat.S_IFMT(mode) in _FILE_TYPES_WITH_ATTRIBUTES:
            if record == NOTHING:
                result = self._files.removexattr(handle, ATTRIBUTE)
                if result == -errno.ENODATA:
                    return
            else:
                result = self._files.setxattr(handle, ATTRIBUTE, encode(record))
            if result == 0:
                return
            if result == -errno.EACCES:
                raise failure(errno.EPERM)
            if result != -errno.EOPNOTSUPP:
                raise failure(-result)
        if os.statvfs(handle).f_flag & os.ST_RDONLY:
            # Beside it could be kept all the same.
            raise failure(errno.EROFS)
        if self._store.is_anonymous(device) and self._keep_on_it(handle, record):
            return
        self._store.keep(device, inode, self._files.birth_time(handle, 0), record)

    def _keep_on_it(self, handle: bytes, record: Record) -> bool:
        """Keep the record on a file that has no user attributes; return whether that is so.

        Raises OSError: ENOSPC.
        """
        if record == NOTHING:
            return self._files.removexattr(handle, _OWN_ATTRIBUTE) == 0
        result = self._files.setxattr(handle, _OWN_ATTRIBUTE, encode(record))
        if result in _NO_ROOM:
            raise failure(-result)
        # Else it was mounted by somebody else, or has no such attributes.
        return result == 0

    def lasts_beside(self, device: int) -> bool:
        """Return whether the side store keeps records of files on a device as long as they live."""
        return self._store.lasts(device)

    def expect(self, name: bytes, record: Record) -> None:
        """Keep the record of a socket that the kernel is about to make, once it is there."""
        parent = self._files.open_path(os.path.dirname(name), 0)
        if parent < 0:
            return
        if len(self._expected) >= _EXPECTED_LIMIT:
            os.close(self._expected.pop(0)[1])
        self._expected.append((os.path.basename(name), parent, record))

    def _settle(self) -> None:
        """Keep the records of what was expected and is there."""
        expected, self._expected = self._expected, []
        for name, parent, record in expected:
            fd = self._files.open_path(b"self/fd/%d/%b" % (parent, name), AT_SYMLINK_NOFOLLOW)
            if fd < 0:
                self._expected.append((name, parent, record))
                continue
            os.close(parent)
            try:
                status = os.fstat(fd)
                if stat.S_ISSOCK(status.st_mode):
                    handle = b"self/fd/%d" % fd
                    self.keep(handle, status.st_mode, status.st_dev, status.st_ino, record)
            finally:
                os.close(fd)

    def _decode(self, value: bytes) -> Record | None:
        if len(self._decoded) >= _CACHE_LIMIT:
            self._decoded.clear()
        try:
            record = decode(value)
        except ValueError:
            # Written by nobody who knows the convention: as if it were not there.
            self._decoded[value] = None
            return None
        self._decoded[value] = record
        return record
