"""What calls that look at files and open them may do on behalf of an emulated user.

And what all checks have in common. A check raises the error that the kernel would give a
real user, or returns None: then the call is carried out, and may fail for other reasons.
Root is never refused.
"""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.call import Call, Change, failure
from runrootless.emulation.callers.credentials import SECURE_NO_SETUID_FIXUP, Credentials
from runrootless.emulation.files.access_lists import AccessLists
from runrootless.emulation.files.creation import O_TMPFILE, read_how
from runrootless.emulation.files.metadata import UNKNOWN_FLAGS
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.paths.walk import Found
from runrootless.emulation.permissions.access import AS_NAME, EXECUTE, READ, WRITE, Access
from runrootless.emulation.processes.process_files import ProcessFiles
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.emulation.call import Handler

_AT_EACCESS = 0x200
_IN_DONT_FOLLOW = 0x02000000
_WANTED = {os.O_RDONLY: READ, os.O_WRONLY: WRITE, os.O_RDWR: READ | WRITE, 3: READ | WRITE}
INT = 0xFFFFFFFF
"""The bits of an int. Flags in it that are not known are EINVAL, which the kernel says first."""

_SIGN = 0x80000000


class FileChecks(Handlers):
    """Checks of these calls."""

    def __init__(
        self, shared: Shared, process_files: ProcessFiles, access_lists: AccessLists
    ) -> None:
        super().__init__(shared)
        self._access = Access(shared, process_files, access_lists)

    def look_around(self) -> None:
        """Find out what this host's rules are, once the agent has joined the container."""
        self._access.look()

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

    def readlink(self, call: Call) -> None:
        """readlink(2)."""
        path, _, size = call.arguments[:3]
        if 0 < size & INT < _SIGN:
            self._read_link(call, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW)

    def readlinkat(self, call: Call) -> None:
        """readlinkat(2)."""
        _, path, _, size = call.arguments[:4]
        if 0 < size & INT < _SIGN:
            flags = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH
            self._read_link(call, call.descriptor(0), path, flags)

    def _read_link(self, call: Call, directory: int, path: int, flags: int) -> None:
        self._with(call, directory, path, flags, self._access.require_look)

    def newfstatat(self, call: Call) -> None:
        """fstatat(2)."""
        _, path, _, flags = call.arguments[:4]
        if not flags & UNKNOWN_FLAGS:
            self._look(call, call.descriptor(0), path, flags)

    def statx(self, call: Call) -> None:
        """statx(2)."""
        _, path, flags = call.arguments[:3]
        if not flags & UNKNOWN_FLAGS:
            self._look(call, call.descriptor(0), path, flags)

    def fchownat(self, call: Call) -> None:
        """fchownat(2)."""
        _, path, _, _, flags = call.arguments[:5]
        if not flags & INT & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
            self._look(call, call.descriptor(0), path, flags)

    def chdir(self, call: Call) -> None:
        """chdir(2)."""
        self._with(call, AT_FDCWD, call.arguments[0], 0, self._enter)

    def fchdir(self, call: Call) -> None:
        """fchdir(2)."""
        descriptor = call.descriptor(0)
        if descriptor >= 0:
            file = self._paths.open_descriptor(call.pid, descriptor)
            self._with_file(call, file, self._enter)

    def _enter(self, call: Call, who: Credentials, found: Found) -> None:
        if found.file >= 0 and stat.S_ISDIR(os.fstat(found.file).st_mode):
            self._access.require(call, who, found.file, EXECUTE)

    def inotify_add_watch(self, call: Call) -> None:
        """inotify_add_watch(2)."""

        def watch(call: Call, who: Credentials, found: Found) -> None:
            if found.file >= 0:
                self._access.require(call, who, found.file, READ)

        _, path, mask = call.arguments[:3]
        self._with(
            call, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW if mask & _IN_DONT_FOLLOW else 0, watch
        )

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

        known = _AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH
        if mode & INT & ~7 or flags & INT & ~known:
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
        found = read_how(self._memory, call.pid, how, size)
        if found is not None and not found[2]:
            self._open(call, call.descriptor(0), path, found[0])

    def _open(self, call: Call, directory: int, path: int, flags: int) -> None:
        def open_(call: Call, who: Credentials, found: Found) -> None:
            if flags & O_PATH:
                return
            if found.file < 0:
                # No file is made by a name that ends with a slash: EISDIR.
                if flags & os.O_CREAT and not found.slash:
                    self._access.require_new(call, who, found.parent)
                return
            mode = os.fstat(found.file).st_mode
            if flags & O_TMPFILE:
                if stat.S_ISDIR(mode):
                    self._access.require_change(call, who, found.file)
                return
            want = _WANTED[flags & os.O_ACCMODE]
            if flags & os.O_TRUNC:
                want |= WRITE
            is_directory = stat.S_ISDIR(mode)
            if flags & os.O_CREAT:
                if flags & os.O_EXCL or is_directory:
                    # EEXIST, EISDIR.
                    return
                if found.parent >= 0:
                    self._access.require_create(call, who, found)
            if (
                stat.S_ISLNK(mode)
                or (is_directory and want & WRITE)
                or (flags & os.O_DIRECTORY and not is_directory)
            ):
                # ELOOP, EISDIR, ENOTDIR.
                return
            if flags & os.O_TRUNC and stat.S_ISREG(mode):
                with Change(found.file):
                    self._access.require(call, who, found.file, want)
            self._access.require(call, who, found.file, want)
            self._access.require_look(call, who, found)
            if flags & os.O_NOATIME and not self._access.is_owner(call, who, found.file):
                raise failure(errno.EPERM)

        if not flags & O_PATH and _is_invalid(flags):
            return
        creates_new = flags & os.O_CREAT and flags & os.O_EXCL and not flags & O_PATH
        nofollow = AT_SYMLINK_NOFOLLOW if flags & os.O_NOFOLLOW or creates_new else 0
        self._with(call, directory, path, nofollow, open_)

    def truncate(self, call: Call) -> None:
        """truncate(2)."""

        def truncate(call: Call, who: Credentials, found: Found) -> None:
            if found.file >= 0 and stat.S_ISREG(os.fstat(found.file).st_mode):
                self._access.require(call, who, found.file, WRITE)

        path, length = call.arguments[:2]
        # A negative length is EINVAL.
        if not length >> 63:
            self._with(call, AT_FDCWD, path, 0, truncate)

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
        if is_root(who):
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
        has_to_be: bool = False,
    ) -> None:
        """Do a check of what two paths lead to.

        ``has_to_be`` where the kernel does not look at the second one if the first leads nowhere.
        """
        who = self._identity.of(call.pid)
        if is_root(who):
            return
        found = self._access.walk(call, who, directory, path, flags)
        if found is None:
            return
        with found:
            if has_to_be and found.file < 0:
                return
            new = self._access.walk(call, who, new_directory, new_path, AS_NAME)
            if new is not None:
                with new:
                    check(call, who, found, new)

    def _with_file(
        self, call: Call, file: int, check: Callable[[Call, Credentials, Found], None]
    ) -> None:
        """Do a check of an open file, whose descriptor this closes. Raises OSError."""
        with Found(-1, b"", file) as found:
            who = self._identity.of(call.pid)
            if not is_root(who):
                check(call, who, found)


def _is_invalid(flags: int) -> bool:
    """Return whether the kernel refuses flags of open(2), whatever the file: EINVAL.

    build_open_flags() in fs/open.c.
    """
    if flags & O_TMPFILE:
        makes_in = flags & (os.O_CREAT | os.O_DIRECTORY) == os.O_DIRECTORY
        return not makes_in or flags & os.O_ACCMODE == os.O_RDONLY
    return bool(flags & os.O_CREAT and flags & os.O_DIRECTORY)


def is_root(who: Credentials) -> bool:
    """Return whether somebody is never refused."""
    return who.uids[3] == 0


def _as_real(who: Credentials) -> Credentials:
    """Return what access(2) asks for: the real IDs, and the capabilities that go with them."""
    uid, gid = who.uids[0], who.gids[0]
    effective = who.effective
    if not who.securebits & SECURE_NO_SETUID_FIXUP:
        effective = 0 if uid else who.permitted
    return Credentials((uid,) * 4, (gid,) * 4, who.groups, who.permitted, effective, who.securebits)
