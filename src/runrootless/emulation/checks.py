"""What calls that change directories, modes and times may do on behalf of an emulated user.

As in ``file_checks``, which has the others.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from runrootless.emulation.access import AS_NAME, WRITE
from runrootless.emulation.attribute_checks import AttributeChecks
from runrootless.emulation.call import Call, refusal
from runrootless.emulation.credentials import Credentials
from runrootless.emulation.file_checks import INT, is_root
from runrootless.emulation.paths import PATH_MAX
from runrootless.emulation.walk import Found
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, is_procfs
from runrootless.linux.processes import descriptor_mount

_AT_SYMLINK_FOLLOW = 0x400
_AT_REMOVEDIR = 0x200
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_RENAME_FLAGS = 7
# st_atime's and st_mtime's nanoseconds, in an array of two ``struct timespec``.
_NANOSECONDS = struct.Struct("=8xq8xq")
_NANOSECONDS_32 = struct.Struct("=4xi4xi")
# Microseconds in an array of two ``struct timeval``; ``struct utimbuf`` has none.
_MICROSECONDS = struct.Struct("=8xq8xq")
_MICROSECONDS_32 = struct.Struct("=4xi4xi")
_SECONDS = struct.Struct("=16x")
_SECONDS_32 = struct.Struct("=8x")
_NOW, _OMIT = 0x3FFFFFFF, 0x3FFFFFFE
_SPECIAL_NAMES = (b"", b".", b"..")


class Checks(AttributeChecks):
    """All checks, by names of calls."""

    # Changing directories.

    def mkdir(self, call: Call) -> None:
        """mkdir(2)."""
        self._make(call, AT_FDCWD, call.arguments[0], True)

    def mkdirat(self, call: Call) -> None:
        """mkdirat(2)."""
        self._make(call, call.descriptor(0), call.arguments[1], True)

    def mknod(self, call: Call) -> None:
        """mknod(2)."""
        self._make(call, AT_FDCWD, call.arguments[0])

    def mknodat(self, call: Call) -> None:
        """mknodat(2)."""
        self._make(call, call.descriptor(0), call.arguments[1])

    def symlink(self, call: Call) -> None:
        """symlink(2)."""
        target, path = call.arguments[:2]
        if self._is_path(call, target):
            self._make(call, AT_FDCWD, path)

    def symlinkat(self, call: Call) -> None:
        """symlinkat(2)."""
        target, _, path = call.arguments[:3]
        if self._is_path(call, target):
            self._make(call, call.descriptor(1), path)

    def link(self, call: Call) -> None:
        """link(2)."""
        old, new = call.arguments[:2]
        self._link(call, AT_FDCWD, old, AT_SYMLINK_NOFOLLOW, AT_FDCWD, new)

    def linkat(self, call: Call) -> None:
        """linkat(2)."""
        _, old, _, new, flags = call.arguments[:5]
        if flags & INT & ~(_AT_SYMLINK_FOLLOW | AT_EMPTY_PATH):
            return
        nofollow = 0 if flags & _AT_SYMLINK_FOLLOW else AT_SYMLINK_NOFOLLOW
        flags = nofollow | flags & AT_EMPTY_PATH
        self._link(call, call.descriptor(0), old, flags, call.descriptor(2), new)

    def unlink(self, call: Call) -> None:
        """unlink(2)."""
        self._unlink(call, AT_FDCWD, call.arguments[0], False)

    def rmdir(self, call: Call) -> None:
        """rmdir(2)."""
        self._unlink(call, AT_FDCWD, call.arguments[0], True)

    def unlinkat(self, call: Call) -> None:
        """unlinkat(2)."""
        if not call.arguments[2] & INT & ~_AT_REMOVEDIR:
            is_directory = bool(call.arguments[2] & _AT_REMOVEDIR)
            self._unlink(call, call.descriptor(0), call.arguments[1], is_directory)

    def rename(self, call: Call) -> None:
        """rename(2)."""
        self._rename(call, AT_FDCWD, call.arguments[0], AT_FDCWD, call.arguments[1], 0)

    def renameat(self, call: Call) -> None:
        """renameat(2)."""
        _, old, _, new = call.arguments[:4]
        self._rename(call, call.descriptor(0), old, call.descriptor(2), new, 0)

    def renameat2(self, call: Call) -> None:
        """renameat2(2)."""
        _, old, _, new, flags = call.arguments[:5]
        flags &= INT
        if flags & ~_RENAME_FLAGS or (flags & _RENAME_EXCHANGE and flags & ~_RENAME_EXCHANGE):
            return
        self._rename(call, call.descriptor(0), old, call.descriptor(2), new, flags)

    def _is_path(self, call: Call, address: int) -> bool:
        """Return whether a path is there: else it is EFAULT, ENOENT or ENAMETOOLONG."""
        path = self._memory.read_string(call.pid, address)
        return path is not None and 0 < len(path) < PATH_MAX

    def require_new(self, call: Call, path: bytes) -> None:
        """Require that the caller may make a file, which bind(2) does. Raises OSError: EACCES."""
        who = self._identity.of(call.pid)
        if is_root(who):
            return
        found = self._access.walk_path(call, who, AT_FDCWD, path, AS_NAME)
        if found is not None:
            with found:
                self._require_make(call, who, found)

    def _make(self, call: Call, directory: int, path: int, is_directory: bool = False) -> None:
        def make(call: Call, who: Credentials, found: Found) -> None:
            self._require_make(call, who, found, is_directory)

        self._with(call, directory, path, AS_NAME, make)

    def _require_make(
        self, call: Call, who: Credentials, found: Found, is_directory: bool = False
    ) -> None:
        # Nothing but a directory is made by a name that ends with a slash: ENOENT.
        if found.file < 0 and found.parent >= 0 and (is_directory or not found.slash):
            self._access.require_new(call, who, found.parent)

    def _link(
        self, call: Call, directory: int, path: int, flags: int, new_directory: int, new_path: int
    ) -> None:
        def link(call: Call, who: Credentials, old: Found, new: Found) -> None:
            if new.parent < 0 or new.file >= 0 or new.slash or is_procfs(new.parent):
                # EEXIST, ENOENT.
                return
            # Else it is EXDEV.
            if descriptor_mount(old.file) == descriptor_mount(new.parent):
                self._access.require_link(call, who, old.file)
                self._access.require_change(call, who, new.parent)

        self._with_both(call, directory, path, flags, new_directory, new_path, link, True)

    def _unlink(self, call: Call, directory: int, path: int, is_directory: bool) -> None:
        def unlink(call: Call, who: Credentials, found: Found) -> None:
            if is_directory or not found.slash:
                # Else it is EISDIR or ENOTDIR.
                self._remove(call, who, found)

        self._with(call, directory, path, AS_NAME, unlink)

    def _remove(self, call: Call, who: Credentials, found: Found) -> None:
        """Require what may_delete() in fs/namei.c does."""
        if found.file < 0 or found.parent < 0 or found.name in _SPECIAL_NAMES:
            return
        self._access.require_change(call, who, found.parent)
        is_sticky = os.fstat(found.parent).st_mode & stat.S_ISVTX
        if (
            is_sticky
            and self._access.owner(call, found.parent) != who.uids[3]
            and not self._access.is_owner(call, who, found.file)
        ):
            raise refusal(found.parent, errno.EPERM)

    def _rename(
        self, call: Call, directory: int, path: int, new_directory: int, new_path: int, flags: int
    ) -> None:
        def rename(call: Call, who: Credentials, old: Found, new: Found) -> None:
            self._rename_found(call, who, old, new, flags)

        self._with_both(call, directory, path, AS_NAME, new_directory, new_path, rename)

    def _rename_found(
        self, call: Call, who: Credentials, old: Found, new: Found, flags: int
    ) -> None:
        if old.file < 0 or old.parent < 0 or new.parent < 0:
            return
        if descriptor_mount(old.parent) != descriptor_mount(new.parent):
            # EXDEV.
            return
        if old.name in _SPECIAL_NAMES or new.name in _SPECIAL_NAMES:
            return
        if flags & _RENAME_NOREPLACE and new.file >= 0:
            # EEXIST.
            return
        status = os.fstat(old.file)
        if new.file >= 0 and os.path.samestat(status, os.fstat(new.file)):
            return
        if new.file < 0 and (flags & _RENAME_EXCHANGE or is_procfs(new.parent)):
            # ENOENT.
            return
        self._remove(call, who, old)
        if new.file >= 0:
            self._remove(call, who, new)
        else:
            self._access.require_change(call, who, new.parent)
        if os.path.samestat(os.fstat(old.parent), os.fstat(new.parent)):
            return
        # Its ".." will be another one.
        if stat.S_ISDIR(status.st_mode):
            self._access.require(call, who, old.file, WRITE)
        if flags & _RENAME_EXCHANGE and new.file >= 0 and stat.S_ISDIR(os.fstat(new.file).st_mode):
            self._access.require(call, who, new.file, WRITE)

    # Changing what is said of a file.

    def chmod(self, call: Call) -> None:
        """chmod(2)."""
        self._with(call, AT_FDCWD, call.arguments[0], 0, self._change)

    def fchmod(self, call: Call) -> None:
        """fchmod(2)."""
        file = self._paths.open_file(call, call.descriptor(0))
        self._with_file(call, file, self._change)

    def fchmodat(self, call: Call) -> None:
        """The system call of fchmodat(2), which takes no flags."""
        self._with(call, call.descriptor(0), call.arguments[1], 0, self._change)

    def fchmodat2(self, call: Call) -> None:
        """fchmodat2(2)."""
        self._with(call, call.descriptor(0), call.arguments[1], call.arguments[3], self._change)

    def utime(self, call: Call) -> None:
        """utime(2)."""
        self._set_old_times(call, AT_FDCWD, 0, _SECONDS)

    def utimes(self, call: Call) -> None:
        """utimes(2)."""
        self._set_old_times(call, AT_FDCWD, 0, _MICROSECONDS)

    def futimesat(self, call: Call) -> None:
        """futimesat(2)."""
        self._set_old_times(call, call.descriptor(0), 1, _MICROSECONDS)

    def utime_32(self, call: Call) -> None:
        """utime(2) of 32-bit programs."""
        self._set_old_times(call, AT_FDCWD, 0, _SECONDS_32)

    def utimes_32(self, call: Call) -> None:
        """utimes(2) of 32-bit programs."""
        self._set_old_times(call, AT_FDCWD, 0, _MICROSECONDS_32)

    def futimesat_32(self, call: Call) -> None:
        """futimesat(2) of 32-bit programs."""
        self._set_old_times(call, call.descriptor(0), 1, _MICROSECONDS_32)

    def _set_old_times(
        self, call: Call, directory: int, index: int, structure: struct.Struct
    ) -> None:
        path, times = call.arguments[index : index + 2]
        if times:
            data = self._memory.read(call.pid, times, structure.size)
            if data is None or not all(0 <= part < 1000000 for part in structure.unpack(data)):
                return
        self._touch(call, directory, path, not times, 0)

    def utimensat(self, call: Call) -> None:
        """utimensat(2)."""
        self._set_times(call, _NANOSECONDS)

    def utimensat_32(self, call: Call) -> None:
        """utimensat(2) of 32-bit programs, whose seconds have 32 bits."""
        self._set_times(call, _NANOSECONDS_32)

    def _set_times(self, call: Call, structure: struct.Struct) -> None:
        _, path, times, flags = call.arguments[:4]
        nanoseconds: tuple[int, ...] = (_NOW, _NOW)
        if times:
            data = self._memory.read(call.pid, times, structure.size)
            if data is None:
                return
            nanoseconds = structure.unpack(data)
            if not all(0 <= part < 10**9 or part in (_NOW, _OMIT) for part in nanoseconds):
                return
        if nanoseconds != (_OMIT, _OMIT):
            is_now = nanoseconds == (_NOW, _NOW)
            self._touch(call, call.descriptor(0), path, is_now, flags)

    def _touch(self, call: Call, directory: int, path: int, is_now: bool, flags: int) -> None:
        def touch(call: Call, who: Credentials, found: Found) -> None:
            if found.file < 0 or self._access.is_owner(call, who, found.file):
                return
            if not is_now:
                raise refusal(found.file, errno.EPERM)
            try:
                self._access.require(call, who, found.file, WRITE)
            except PermissionError:
                raise refusal(found.file, errno.EACCES) from None

        if flags & INT & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
            return
        if path:
            self._with(call, directory, path, flags, touch)
        elif directory >= 0 and not flags:
            self._with_file(call, self._paths.open_file(call, directory), touch)

    def _change(self, call: Call, who: Credentials, found: Found) -> None:
        if found.file >= 0 and not self._access.is_owner(call, who, found.file):
            raise refusal(found.file, errno.EPERM)
