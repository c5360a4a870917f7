"""What each call may do to files on behalf of an emulated user.

A check raises the error that the kernel would give a real user, or returns None: then
the call goes its way, which may well fail for other reasons. Root is never refused.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from runrootless.emulation.access import EXECUTE, READ, WRITE, Access, Found
from runrootless.emulation.call import Call, failure
from runrootless.emulation.creation import O_TMPFILE
from runrootless.emulation.credentials import SECURE_NO_SETUID_FIXUP, Credentials
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.emulation.emulator import Handler

_AT_EACCESS = 0x200
_AT_SYMLINK_FOLLOW = 0x400
_WANTED = {os.O_RDONLY: READ, os.O_WRONLY: WRITE, os.O_RDWR: READ | WRITE, 3: READ | WRITE}
_RENAME_EXCHANGE = 2
_OPEN_HOW_SIZE = 24
# st_atime's and st_mtime's nanoseconds, in an array of two ``struct timespec``.
_NANOSECONDS = struct.Struct("=8xq8xq")
_NANOSECONDS_32 = struct.Struct("=4xi4xi")
_NOW, _OMIT = 0x3FFFFFFF, 0x3FFFFFFE
_SPECIAL_NAMES = (b"", b".", b"..")


class Checks(Handlers):
    """The checks, by names of calls."""

    def __init__(self, shared: Shared, access: Access) -> None:
        super().__init__(shared)
        self._access = access

    def guard(self, check: Callable[[Call], None], handler: Handler) -> Handler:
        """Return a handler that does the check first."""

        def guarded(call: Call) -> int | None:
            check(call)
            return handler(call)

        return guarded

    # Looking.

    def look(self, call: Call) -> None:
        """Any call on the file that the first argument is the path of."""
        self._look(call, AT_FDCWD, call.arguments[0], 0)

    def look_nofollow(self, call: Call) -> None:
        """Any call on the file itself that the first argument is the path of."""
        self._look(call, AT_FDCWD, call.arguments[0], AT_SYMLINK_NOFOLLOW)

    def look_at(self, call: Call) -> None:
        """Calls with a directory and a path, on the file itself."""
        self._look(call, call.descriptor(0), call.arguments[1], AT_SYMLINK_NOFOLLOW)

    def newfstatat(self, call: Call) -> None:
        """fstatat(2)."""
        self._look(call, call.descriptor(0), call.arguments[1], call.arguments[3])

    def statx(self, call: Call) -> None:
        """statx(2)."""
        self._look(call, call.descriptor(0), call.arguments[1], call.arguments[2])

    def fchownat(self, call: Call) -> None:
        """fchownat(2)."""
        self._look(call, call.descriptor(0), call.arguments[1], call.arguments[4])

    def chdir(self, call: Call) -> None:
        """chdir(2)."""
        self._with(call, AT_FDCWD, call.arguments[0], 0, self._enter)

    def fchdir(self, call: Call) -> None:
        """fchdir(2)."""
        self._with_open(call, call.descriptor(0), self._enter)

    def _enter(self, call: Call, who: Credentials, found: Found) -> None:
        if found.file >= 0 and stat.S_ISDIR(os.fstat(found.file).st_mode):
            self._access.require(call, who, found.file, EXECUTE)

    # Asking.

    def access(self, call: Call) -> None:
        """access(2)."""
        path, mode = call.arguments[:2]
        self._ask(call, AT_FDCWD, path, mode, 0)

    def faccessat(self, call: Call) -> None:
        """The system call of faccessat(2), which takes no flags."""
        _, path, mode = call.arguments[:3]
        self._ask(call, call.descriptor(0), path, mode, 0)

    def faccessat2(self, call: Call) -> None:
        """faccessat2(2)."""
        _, path, mode, flags = call.arguments[:4]
        self._ask(call, call.descriptor(0), path, mode, flags)

    def _ask(self, call: Call, directory: int, path: int, mode: int, flags: int) -> None:
        def ask(call: Call, who: Credentials, found: Found) -> None:
            if mode & 7 and found.file >= 0:
                self._access.require(call, who, found.file, mode & 7)

        if mode & 0xFFFFFFFF & ~7 or flags & 0xFFFFFFFF & ~(
            _AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH
        ):
            return
        who = self._identity.of(call.pid)
        if not flags & _AT_EACCESS:
            who = _as_real(who)
        self._with(call, directory, path, flags, ask, who)

    # Opening.

    def open(self, call: Call) -> None:
        """open(2)."""
        path, flags = call.arguments[:2]
        self._open(call, AT_FDCWD, path, flags)

    def creat(self, call: Call) -> None:
        """creat(2)."""
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        self._open(call, AT_FDCWD, call.arguments[0], flags)

    def openat(self, call: Call) -> None:
        """openat(2)."""
        _, path, flags = call.arguments[:3]
        self._open(call, call.descriptor(0), path, flags)

    def openat2(self, call: Call) -> None:
        """openat2(2); one that is to resolve its path in a special way is not checked."""
        _, path, how, size = call.arguments[:4]
        data = self._memory.read(call.pid, how, _OPEN_HOW_SIZE) if size >= _OPEN_HOW_SIZE else None
        if data is not None:
            flags, _, resolve = struct.unpack("=3Q", data)
            if not resolve:
                self._open(call, call.descriptor(0), path, flags)

    def _open(self, call: Call, directory: int, path: int, flags: int) -> None:
        def open_(call: Call, who: Credentials, found: Found) -> None:
            if flags & O_PATH:
                return
            if found.file < 0:
                if flags & os.O_CREAT and not flags & os.O_DIRECTORY:
                    self._access.require(call, who, found.parent, WRITE | EXECUTE)
                return
            mode = os.fstat(found.file).st_mode
            if flags & O_TMPFILE == O_TMPFILE:
                if stat.S_ISDIR(mode):
                    self._access.require(call, who, found.file, WRITE | EXECUTE)
                return
            want = _WANTED[flags & os.O_ACCMODE]
            if flags & os.O_TRUNC:
                want |= WRITE
            is_directory = stat.S_ISDIR(mode)
            if (
                (flags & os.O_CREAT and (flags & os.O_EXCL or is_directory))
                or stat.S_ISLNK(mode)
                or (is_directory and want & WRITE)
                or (flags & os.O_DIRECTORY and not is_directory)
            ):
                # EEXIST, ELOOP, EISDIR, ENOTDIR.
                return
            self._access.require(call, who, found.file, want)
            if flags & os.O_NOATIME and not self._access.is_owner(call, who, found.file):
                raise failure(errno.EPERM)

        creates_new = flags & os.O_CREAT and flags & os.O_EXCL
        nofollow = AT_SYMLINK_NOFOLLOW if flags & os.O_NOFOLLOW or creates_new else 0
        self._with(call, directory, path, nofollow, open_)

    def truncate(self, call: Call) -> None:
        """truncate(2)."""

        def truncate(call: Call, who: Credentials, found: Found) -> None:
            if found.file >= 0 and stat.S_ISREG(os.fstat(found.file).st_mode):
                self._access.require(call, who, found.file, WRITE)

        self._with(call, AT_FDCWD, call.arguments[0], 0, truncate)

    def execve(self, call: Call) -> None:
        """execve(2)."""
        self._execute(call, AT_FDCWD, call.arguments[0], 0)

    def execveat(self, call: Call) -> None:
        """execveat(2)."""
        self._execute(call, call.descriptor(0), call.arguments[1], call.arguments[4])

    def _execute(self, call: Call, directory: int, path: int, flags: int) -> None:
        def execute(call: Call, who: Credentials, found: Found) -> None:
            if found.file >= 0 and stat.S_ISREG(os.fstat(found.file).st_mode):
                self._access.require(call, who, found.file, EXECUTE)

        self._with(call, directory, path, flags, execute)

    # Changing directories.

    def make(self, call: Call) -> None:
        """mkdir(2), mknod(2)."""
        self._make(call, AT_FDCWD, call.arguments[0])

    def make_at(self, call: Call) -> None:
        """mkdirat(2), mknodat(2)."""
        self._make(call, call.descriptor(0), call.arguments[1])

    def symlink(self, call: Call) -> None:
        """symlink(2)."""
        self._make(call, AT_FDCWD, call.arguments[1])

    def symlinkat(self, call: Call) -> None:
        """symlinkat(2)."""
        self._make(call, call.descriptor(1), call.arguments[2])

    def link(self, call: Call) -> None:
        """link(2)."""
        old, new = call.arguments[:2]
        self._link(call, AT_FDCWD, old, AT_SYMLINK_NOFOLLOW, AT_FDCWD, new)

    def linkat(self, call: Call) -> None:
        """linkat(2)."""
        _, old, _, new, flags = call.arguments[:5]
        nofollow = 0 if flags & _AT_SYMLINK_FOLLOW else AT_SYMLINK_NOFOLLOW
        flags = nofollow | flags & AT_EMPTY_PATH
        self._link(call, call.descriptor(0), old, flags, call.descriptor(2), new)

    def unlink(self, call: Call) -> None:
        """unlink(2), rmdir(2)."""
        self._unlink(call, AT_FDCWD, call.arguments[0])

    def unlinkat(self, call: Call) -> None:
        """unlinkat(2)."""
        self._unlink(call, call.descriptor(0), call.arguments[1])

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
        self._rename(call, call.descriptor(0), old, call.descriptor(2), new, flags)

    def _make(self, call: Call, directory: int, path: int) -> None:
        def make(call: Call, who: Credentials, found: Found) -> None:
            if found.file < 0 and found.parent >= 0:
                self._access.require(call, who, found.parent, WRITE | EXECUTE)

        self._with(call, directory, path, AT_SYMLINK_NOFOLLOW, make)

    def _link(
        self, call: Call, directory: int, path: int, flags: int, new_directory: int, new_path: int
    ) -> None:
        def link(call: Call, who: Credentials, old: Found, new: Found) -> None:
            if old.file >= 0 and new.parent >= 0 and new.file < 0:
                self._access.require_link(call, who, old.file)
                self._access.require(call, who, new.parent, WRITE | EXECUTE)

        self._with_both(call, directory, path, flags, new_directory, new_path, link)

    def _unlink(self, call: Call, directory: int, path: int) -> None:
        self._with(call, directory, path, AT_SYMLINK_NOFOLLOW, self._remove)

    def _remove(self, call: Call, who: Credentials, found: Found) -> None:
        """Require what may_delete() in fs/namei.c does."""
        if found.file < 0 or found.parent < 0 or found.name in _SPECIAL_NAMES:
            return
        self._access.require(call, who, found.parent, WRITE | EXECUTE)
        is_sticky = os.fstat(found.parent).st_mode & stat.S_ISVTX
        if (
            is_sticky
            and self._access.owner(call, found.parent) != who.uids[3]
            and not self._access.is_owner(call, who, found.file)
        ):
            raise failure(errno.EPERM)

    def _rename(
        self, call: Call, directory: int, path: int, new_directory: int, new_path: int, flags: int
    ) -> None:
        def rename(call: Call, who: Credentials, old: Found, new: Found) -> None:
            self._rename_found(call, who, old, new, flags)

        nofollow = AT_SYMLINK_NOFOLLOW
        self._with_both(call, directory, path, nofollow, new_directory, new_path, rename)

    def _rename_found(
        self, call: Call, who: Credentials, old: Found, new: Found, flags: int
    ) -> None:
        if old.file < 0 or old.parent < 0 or new.parent < 0:
            return
        if old.name in _SPECIAL_NAMES or new.name in _SPECIAL_NAMES:
            return
        status = os.fstat(old.file)
        if new.file >= 0 and os.path.samestat(status, os.fstat(new.file)):
            return
        self._remove(call, who, old)
        if new.file >= 0:
            self._remove(call, who, new)
        else:
            self._access.require(call, who, new.parent, WRITE | EXECUTE)
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
        self._with_open(call, call.descriptor(0), self._change)

    def fchmodat(self, call: Call) -> None:
        """The system call of fchmodat(2), which takes no flags."""
        self._with(call, call.descriptor(0), call.arguments[1], 0, self._change)

    def fchmodat2(self, call: Call) -> None:
        """fchmodat2(2)."""
        self._with(call, call.descriptor(0), call.arguments[1], call.arguments[3], self._change)

    def utime(self, call: Call) -> None:
        """utime(2), utimes(2)."""
        self._touch(call, AT_FDCWD, call.arguments[0], not call.arguments[1], 0)

    def futimesat(self, call: Call) -> None:
        """futimesat(2)."""
        self._touch(call, call.descriptor(0), call.arguments[1], not call.arguments[2], 0)

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
        if nanoseconds != (_OMIT, _OMIT):
            is_now = nanoseconds == (_NOW, _NOW)
            self._touch(call, call.descriptor(0), path, is_now, flags)

    def _touch(self, call: Call, directory: int, path: int, is_now: bool, flags: int) -> None:
        def touch(call: Call, who: Credentials, found: Found) -> None:
            if found.file < 0 or self._access.is_owner(call, who, found.file):
                return
            if not is_now:
                raise failure(errno.EPERM)
            self._access.require(call, who, found.file, WRITE)

        if path:
            self._with(call, directory, path, flags, touch)
        else:
            self._with_open(call, directory, touch)

    def _change(self, call: Call, who: Credentials, found: Found) -> None:
        if found.file >= 0 and not self._access.is_owner(call, who, found.file):
            raise failure(errno.EPERM)

    # What they have in common.

    def _look(self, call: Call, directory: int, path: int, flags: int) -> None:
        self._with(call, directory, path, flags, lambda call, who, found: None)

    def _with(
        self,
        call: Call,
        directory: int,
        path: int,
        flags: int,
        check: Callable[[Call, Credentials, Found], None],
        who: Credentials | None = None,
    ) -> None:
        """Do a check of what a path leads to. Raises OSError: EACCES, and what the check does."""
        if who is None:
            who = self._identity.of(call.pid)
        if _is_root(who):
            return
        found = self._access.walk(call, who, directory, path, flags)
        if found is not None:
            with found:
                check(call, who, found)

    def _with_both(
        self,
        call: Call,
        directory: int,
        path: int,
        flags: int,
        new_directory: int,
        new_path: int,
        check: Callable[[Call, Credentials, Found, Found], None],
    ) -> None:
        who = self._identity.of(call.pid)
        if _is_root(who):
            return
        found = self._access.walk(call, who, directory, path, flags)
        if found is None:
            return
        with found:
            new = self._access.walk(call, who, new_directory, new_path, AT_SYMLINK_NOFOLLOW)
            if new is not None:
                with new:
                    check(call, who, found, new)

    def _with_open(
        self, call: Call, descriptor: int, check: Callable[[Call, Credentials, Found], None]
    ) -> None:
        who = self._identity.of(call.pid)
        if _is_root(who):
            return
        found = self._access.open_file(call, descriptor)
        if found is not None:
            with found:
                check(call, who, found)


def _is_root(who: Credentials) -> bool:
    return who.uids[3] == 0


def _as_real(who: Credentials) -> Credentials:
    """Return what access(2) asks for: the real IDs, and the capabilities that go with them."""
    uid, gid = who.uids[0], who.gids[0]
    effective = who.effective
    if not who.securebits & SECURE_NO_SETUID_FIXUP:
        effective = 0 if uid else who.permitted
    return Credentials((uid,) * 4, (gid,) * 4, who.groups, who.permitted, effective, who.securebits)
