"""What calls that change directories may do on behalf of an emulated user.

As in ``file_checks``, which has the others.
"""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.call import Call, Change, failure
from runrootless.emulation.callers.credentials import Credentials
from runrootless.emulation.paths.resolution import PATH_MAX
from runrootless.emulation.paths.walk import Found, is_open_directory, is_within
from runrootless.emulation.permissions.access import AS_NAME, WRITE, takes_nothing
from runrootless.emulation.permissions.file_checks import INT, is_root
from runrootless.emulation.permissions.mode_checks import ModeChecks
from runrootless.linux.files import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
)
from runrootless.linux.processes import descriptor_mount

_AT_SYMLINK_FOLLOW = 0x400
_AT_REMOVEDIR = 0x200
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_RENAME_FLAGS = 7
_SPECIAL_NAMES = (b"", b".", b"..")
# What may_mknod() in fs/namei.c lets through. Of a directory it says EPERM, of all else EINVAL,
# before it looks at the path.
_MADE = (0, stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)


class Checks(ModeChecks):
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
        path, mode = call.arguments[:2]
        if stat.S_IFMT(mode) in _MADE:
            self._make(call, AT_FDCWD, path)

    def mknodat(self, call: Call) -> None:
        """mknodat(2)."""
        _, path, mode = call.arguments[:3]
        if stat.S_IFMT(mode) in _MADE:
            self._make(call, call.descriptor(0), path)

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
            if new.parent < 0 or new.file >= 0 or new.slash or takes_nothing(new.parent):
                # EEXIST, ENOENT.
                return
            # Else it is EXDEV.
            if descriptor_mount(old.file) == descriptor_mount(new.parent):
                with Change(new.parent):
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
            with Change(found.parent):
                raise failure(errno.EPERM)

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
        if new.file < 0 and (flags & _RENAME_EXCHANGE or takes_nothing(new.parent)):
            # ENOENT.
            return
        exchanges = bool(flags & _RENAME_EXCHANGE)
        if _is_no_place(old, new, exchanges):
            return
        with Change(new.parent):
            self._remove(call, who, old)
            if new.file < 0:
                self._access.require_change(call, who, new.parent)
            else:
                self._remove(call, who, new)
                is_directory = is_open_directory(new.file)
                if not exchanges and is_directory != stat.S_ISDIR(status.st_mode):
                    # EISDIR, ENOTDIR.
                    return
            if os.path.samestat(os.fstat(old.parent), os.fstat(new.parent)):
                return
            # Its ".." will be another one.
            if stat.S_ISDIR(status.st_mode):
                self._access.require(call, who, old.file, WRITE)
            if exchanges and stat.S_ISDIR(os.fstat(new.file).st_mode):
                self._access.require(call, who, new.file, WRITE)


def _is_no_place(old: Found, new: Found, exchanges: bool) -> bool:
    """Return whether rename(2) refuses two names whosoever asks, before it asks who does.

    do_renameat2() in fs/namei.c: ENOTDIR of what is no directory and has a slash behind its
    name, EINVAL or ENOTEMPTY of a directory and one in it.
    """
    is_directory = is_open_directory(old.file)
    if not is_directory and (old.slash or (new.slash and not exchanges)):
        return True
    is_new_directory = new.file >= 0 and is_open_directory(new.file)
    if exchanges and new.slash and not is_new_directory:
        return True
    return (is_directory and is_within(new.parent, old.file)) or (
        is_new_directory and is_within(old.parent, new.file)
    )
