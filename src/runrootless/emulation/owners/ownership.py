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
from _thread import allocate_lock

from runrootless.emulation.apart import Apart
from runrootless.emulation.call import failure
from runrootless.emulation.owners.expectations import Expectations
from runrootless.emulation.stores.lasting_map import LastingMap
from runrootless.emulation.stores.owner_store import OwnerStore
from runrootless.emulation.stores.record import NOTHING, Record, decode, encode
from runrootless.linux.files import Files

ATTRIBUTE = b"user.rootlesscontainers"

# To the container all of ``security.*`` is kept elsewhere, so this one is neither seen nor set.
_OWN_ATTRIBUTE = b"security.rootlesscontainers"

_NO_ROOM = (-errno.ENOSPC, -errno.EDQUOT, -errno.ENOMEM)
_CACHE_LIMIT = 4096
_GIVEN_LIMIT = 8192
_TYPE_MASK = 0o170000
_FILE_TYPES_WITH_ATTRIBUTES = (stat.S_IFREG, stat.S_IFDIR)
_TYPES_OF_DEVICES = (stat.S_IFCHR, stat.S_IFREG)


class Ownership:
    """Finds and keeps the records of files, wherever they are kept."""

    def __init__(self, files: Files, store: OwnerStore, apart: Apart) -> None:
        self._apart = apart
        self._files = files
        self._store = store
        self.expectations = Expectations(files, self.keep_new)
        self._decoded: dict[bytes, Record | None] = {}
        self._lock = allocate_lock()
        # By st_dev and st_ino: the time of birth, and the record.
        self._given: dict[tuple[int, int], tuple[int, Record]] = {}
        self.kept = LastingMap("given", _GIVEN_LIMIT)

    def take_over(self) -> None:
        """Begin with what the worker before was given, if there was one. Raises OSError."""
        self.kept.take_over()
        for (device, inode), (birth, packed) in self.kept.items():
            self._given[int(device), int(inode)] = birth, decode(packed)
            self._apart.add(int(device), int(inode))

    def find(self, file: int, mode: int, device: int, inode: int) -> Record | None:
        """Return the record of an open file, or None.

        ``mode``, ``device`` and ``inode`` are what stat(2) said of it.
        """
        if self._given and (device, inode) in self._given:
            given = self._given.get((device, inode))
            if given is not None and given[0] == self._files.birth_time(file):
                return given[1]
        if mode & _TYPE_MASK in _FILE_TYPES_WITH_ATTRIBUTES:
            value = self._files.getxattr(file, ATTRIBUTE)
            if value.__class__ is bytes:
                try:
                    return self._decoded[value]
                except KeyError:
                    return self._decode(value)
            if value == -errno.ENODATA:
                return None
        return self._find_beside(file, mode, device, inode)

    def _find_beside(self, file: int, mode: int, device: int, inode: int) -> Record | None:
        if self.expectations:
            self.expectations.settle(device)
        if self._store.is_anonymous(device):
            value = self._files.getxattr(file, _OWN_ATTRIBUTE)
            if value.__class__ is bytes:
                return self._decode(value)
        found = self._store.find(device, inode)
        if found is None:
            return None
        birth, record = found
        if record.device_type and mode & _TYPE_MASK not in _TYPES_OF_DEVICES:
            # On a file system without times of birth: the inode number is another file's by now.
            return None
        return record if birth == self._files.birth_time(file) else None

    def give(self, device: int, inode: int, birth: int, record: Record) -> None:
        """Have a file that is somebody's in the container alone, as long as that lasts.

        Until its owner is changed, the record counts before what is kept of the file. Raises
        OSError: ENOSPC, ENOMEM.
        """
        with self._lock:
            # The oldest go there as here.
            self.kept.set((device, inode), None)
            self.kept.set((device, inode), (birth, encode(record)))
            self._given.pop((device, inode), None)
            while len(self._given) >= _GIVEN_LIMIT:
                del self._given[next(iter(self._given))]
            self._given[device, inode] = birth, record
        self._apart.add(device, inode)

    def keep(self, file: int, mode: int, device: int, inode: int, record: Record) -> None:
        """Keep the record of an open file.

        Raises OSError as chown(2) would: EROFS, EPERM, ENOSPC.
        """
        self._keep(file, mode, device, inode, record)
        if (device, inode) in self._given:
            with self._lock:
                self._given.pop((device, inode), None)
                self.kept.set((device, inode), None)

    def _keep(self, file: int, mode: int, device: int, inode: int, record: Record) -> None:
        if stat.S_IFMT(mode) in _FILE_TYPES_WITH_ATTRIBUTES:
            if record == NOTHING:
                result = self._files.removexattr(file, ATTRIBUTE)
                if result == -errno.ENODATA:
                    return
            else:
                result = self._files.setxattr(file, ATTRIBUTE, encode(record))
            if result == 0:
                return
            if result == -errno.EACCES:
                raise failure(errno.EPERM)
            if result != -errno.EOPNOTSUPP:
                raise failure(-result)
        if os.fstatvfs(file).f_flag & os.ST_RDONLY:
            # The side store could keep it nevertheless.
            raise failure(errno.EROFS)
        if self._store.is_anonymous(device) and self._keep_on_it(file, record):
            return
        self._store.keep(device, inode, self._files.birth_time(file), record)

    def keep_new(self, file: int, record: Record) -> None:
        """Keep the record of an open file that is new. Raises OSError as ``keep``."""
        status = os.fstat(file)
        self.keep(file, status.st_mode, status.st_dev, status.st_ino, record)

    def _keep_on_it(self, file: int, record: Record) -> bool:
        """Keep the record on a file that has no user attributes; return whether that is so.

        Raises OSError: ENOSPC.
        """
        if record == NOTHING:
            return self._files.removexattr(file, _OWN_ATTRIBUTE) == 0
        result = self._files.setxattr(file, _OWN_ATTRIBUTE, encode(record))
        if result in _NO_ROOM:
            raise failure(-result)
        # Else it was mounted by somebody else, or has no such attributes.
        return result == 0

    def is_carried(self, file: int) -> bool:
        """Return whether an open directory can carry a record."""
        value = self._files.getxattr(file, ATTRIBUTE)
        return value.__class__ is bytes or value == -errno.ENODATA

    def lasts_beside(self, device: int) -> bool:
        """Return whether the side store keeps records of files on a device as long as they live."""
        return self._store.lasts(device)

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
