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

from runrootless.emulation.call import failure
from runrootless.emulation.owner_store import OwnerStore
from runrootless.emulation.record import NOTHING, Record, decode, encode
from runrootless.emulation.walk import open_child
from runrootless.linux.files import Files, is_overlay

ATTRIBUTE = b"user.rootlesscontainers"

# To the container all of ``security.*`` is kept elsewhere, so this one is neither seen nor set.
_OWN_ATTRIBUTE = b"security.rootlesscontainers"

_NO_ROOM = (-errno.ENOSPC, -errno.EDQUOT, -errno.ENOMEM)
_CACHE_LIMIT = 4096
_EXPECTED_LIMIT = 64
_TYPE_MASK = 0o170000
_FILE_TYPES_WITH_ATTRIBUTES = (stat.S_IFREG, stat.S_IFDIR)
_TYPES_OF_DEVICES = (stat.S_IFCHR, stat.S_IFREG)


class _Expected:
    """A socket that the kernel is about to make, by its name in a directory.

    ``parent`` is a descriptor, closed with this, and ``status`` what stat(2) says of it.
    ``device`` is st_dev of the socket, None where that may be another than the directory's.
    """

    __slots__ = ("_place", "device", "is_over", "lock", "name", "parent", "record")

    def __init__(self, name: bytes, parent: int, status: os.stat_result, record: Record) -> None:
        self.name = name
        self.parent = parent
        self._place = status.st_dev, status.st_ino
        self.device = None if is_overlay(parent) else status.st_dev
        self.record = record
        self.is_over = False
        self.lock = allocate_lock()

    def is_of(self, directory: os.stat_result, name: bytes) -> bool:
        """Return whether it is called ``name`` in a directory, of which this is the status."""
        return self.name == name and self._place == (directory.st_dev, directory.st_ino)

    def __del__(self) -> None:
        os.close(self.parent)


class Ownership:
    """Finds and keeps the records of files, wherever they are kept."""

    def __init__(self, files: Files, store: OwnerStore) -> None:
        self._files = files
        self._store = store
        self._expected: list[_Expected] = []
        self._lock = allocate_lock()
        self._decoded: dict[bytes, Record | None] = {}

    def find(self, file: int, mode: int, device: int, inode: int) -> Record | None:
        """Return the record of an open file, or None.

        ``mode``, ``device`` and ``inode`` are what stat(2) said of it.
        """
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
        if self._expected:
            self._settle(device)
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

    def keep(self, file: int, mode: int, device: int, inode: int, record: Record) -> None:
        """Keep the record of an open file.

        Raises OSError as chown(2) would: EROFS, EPERM, ENOSPC.
        """
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
            # Beside it could be kept all the same.
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

    def lasts_beside(self, device: int) -> bool:
        """Return whether the side store keeps records of files on a device as long as they live."""
        return self._store.lasts(device)

    def expect(self, parent: int, name: bytes, record: Record | None) -> None:
        """Keep the record of a socket that the kernel is about to make, once it is there.

        ``parent`` is a descriptor of the directory, which stays the caller's to close, and
        ``name`` that of the socket in it. Without a ``record`` there will be none to keep, but
        what was expected by that name, of a bind(2) that has failed, is not any more.
        Raises OSError: EMFILE.
        """
        status = os.fstat(parent)
        self._settle(status.st_dev)
        new = None if record is None else _Expected(name, os.dup(parent), status, record)
        with self._lock:
            for one in list(self._expected):
                if one.is_of(status, name):
                    one.is_over = True
                    self._expected.remove(one)
            if new is not None:
                del self._expected[: 1 - _EXPECTED_LIMIT]
                self._expected.append(new)

    def _settle(self, device: int) -> None:
        """Keep the records of what was expected and is there, as far as it concerns a device."""
        for one in list(self._expected):
            # Who asks for other files is not to wait for a file system that does not answer.
            # Of one that another thread is at, that thread tells.
            if one.device in (None, device) and one.lock.acquire(False):
                try:
                    is_kept = one.is_over or self._is_kept(one)
                finally:
                    one.lock.release()
                if is_kept:
                    with self._lock:
                        if one in self._expected:
                            self._expected.remove(one)

    def _is_kept(self, expected: _Expected) -> bool:
        """Keep the record of a socket; return whether there is nothing left to do for it."""
        try:
            file = open_child(expected.parent, expected.name)
            if file < 0:
                return False
            try:
                # Looked at after the file: whoever is about to make another one says so before.
                if stat.S_ISSOCK(os.fstat(file).st_mode) and not expected.is_over:
                    self.keep_new(file, expected.record)
            finally:
                os.close(file)
        except OSError:
            # No room for it, say; there may be later.
            return False
        return True

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
