"""What calls that change modes and times may do on behalf of an emulated user.

As in ``file_checks``, which has the others. What the kernel would not do as it does for a real
user is done here: a handler returns 0 then, and None where the call is the kernel's.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time

from runrootless.emulation.call import Call, Change, failure, require_valid
from runrootless.emulation.callers.credentials import Credentials
from runrootless.emulation.paths.walk import Found
from runrootless.emulation.permissions.access import WRITE
from runrootless.emulation.permissions.attribute_checks import AttributeChecks
from runrootless.emulation.permissions.file_checks import INT, is_root
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# An array of two ``struct timespec`` or ``struct timeval``, and ``struct utimbuf``.
_PARTS = struct.Struct("=4q")
_PARTS_32 = struct.Struct("=4i")
_SECONDS = struct.Struct("=2q")
_SECONDS_32 = struct.Struct("=2i")
_SECOND = 10**9
_NOW, _OMIT = 0x3FFFFFFF, 0x3FFFFFFE


class ModeChecks(AttributeChecks):
    """Checks of these calls."""

    def chmod(self, call: Call) -> int | None:
        """chmod(2)."""
        path, mode = call.arguments[:2]
        return self._chmod(call, AT_FDCWD, path, 0, mode)

    def fchmod(self, call: Call) -> int | None:
        """fchmod(2)."""
        mode = call.arguments[1]
        file = self._paths.open_file(call, call.descriptor(0))
        with Found(-1, b"", file) as found:
            return self._chmod_found(call, self._identity.of(call.pid), found, mode)

    def fchmodat(self, call: Call) -> int | None:
        """The system call of fchmodat(2), which takes no flags."""
        _, path, mode = call.arguments[:3]
        return self._chmod(call, call.descriptor(0), path, 0, mode)

    def fchmodat2(self, call: Call) -> int | None:
        """fchmodat2(2)."""
        _, path, mode, flags = call.arguments[:4]
        return self._chmod(call, call.descriptor(0), path, flags, mode)

    def utime(self, call: Call) -> int | None:
        """utime(2)."""
        return self._set_old_times(call, AT_FDCWD, 0, _SECONDS)

    def utimes(self, call: Call) -> int | None:
        """utimes(2)."""
        return self._set_old_times(call, AT_FDCWD, 0, _PARTS)

    def futimesat(self, call: Call) -> int | None:
        """futimesat(2)."""
        return self._set_old_times(call, call.descriptor(0), 1, _PARTS)

    def utime_32(self, call: Call) -> int | None:
        """utime(2) of 32-bit programs."""
        return self._set_old_times(call, AT_FDCWD, 0, _SECONDS_32)

    def utimes_32(self, call: Call) -> int | None:
        """utimes(2) of 32-bit programs."""
        return self._set_old_times(call, AT_FDCWD, 0, _PARTS_32)

    def futimesat_32(self, call: Call) -> int | None:
        """futimesat(2) of 32-bit programs."""
        return self._set_old_times(call, call.descriptor(0), 1, _PARTS_32)

    def _set_old_times(
        self, call: Call, directory: int, index: int, structure: struct.Struct
    ) -> int | None:
        path, times = call.arguments[index : index + 2]
        if not times:
            return self._touch(call, directory, path, None, 0)
        data = self._memory.read(call.pid, times, structure.size)
        if data is None:
            return None
        numbers = structure.unpack(data)
        if len(numbers) == 2:
            values = [number * _SECOND for number in numbers]
        elif all(0 <= part < 1000000 for part in numbers[1::2]):
            values = [
                seconds * _SECOND + part * 1000
                for seconds, part in zip(numbers[::2], numbers[1::2], strict=True)
            ]
        else:
            return None
        return self._touch(call, directory, path, values, 0)

    def utimensat(self, call: Call) -> int | None:
        """utimensat(2)."""
        return self._set_times(call, _PARTS)

    def utimensat_32(self, call: Call) -> int | None:
        """utimensat(2) of 32-bit programs, whose seconds have 32 bits."""
        return self._set_times(call, _PARTS_32)

    def _set_times(self, call: Call, structure: struct.Struct) -> int | None:
        _, path, times, flags = call.arguments[:4]
        values: list[int | None] | None = None
        if times:
            data = self._memory.read(call.pid, times, structure.size)
            if data is None:
                return None
            numbers = structure.unpack(data)
            parts = numbers[1::2]
            if not all(0 <= part < _SECOND or part in (_NOW, _OMIT) for part in parts):
                return None
            if parts == (_OMIT, _OMIT):
                return None
            if parts != (_NOW, _NOW):
                now = time.time_ns()
                values = [
                    {_NOW: now, _OMIT: None}.get(part, seconds * _SECOND + part)
                    for seconds, part in zip(numbers[::2], parts, strict=True)
                ]
        return self._touch(call, call.descriptor(0), path, values, flags)

    def _touch(
        self,
        call: Call,
        directory: int,
        path: int,
        times: Sequence[int | None] | None,
        flags: int,
    ) -> int | None:
        """Require that times may be set, in nanoseconds, None for now; set those of the host's."""
        if flags & INT & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
            return None
        who = self._identity.of(call.pid)
        if path:
            found = self._walk(call, who, directory, path, flags)
        elif directory >= 0 and not flags:
            found = Found(-1, b"", self._paths.open_file(call, directory))
        else:
            found = None
        if found is None:
            return None
        with found:
            if found.file < 0:
                return None
            if not is_root(who):
                self._require_touch(call, who, found.file, times is None)
            status = os.fstat(found.file)
            if not self._host_files.contains(found.file, status):
                return None
            require_valid(call)
            self._host_files.set_times(status, times or (time.time_ns(),) * 2)
            return 0

    def _require_touch(self, call: Call, who: Credentials, file: int, is_now: bool) -> None:
        if self._access.is_owner(call, who, file):
            return
        with Change(file):
            if not is_now:
                raise failure(errno.EPERM)
            self._access.require(call, who, file, WRITE)

    def _chmod(self, call: Call, directory: int, path: int, flags: int, mode: int) -> int | None:
        who = self._identity.of(call.pid)
        found = self._walk(call, who, directory, path, flags)
        if found is None:
            return None
        with found:
            return self._chmod_found(call, who, found, mode)

    def _chmod_found(self, call: Call, who: Credentials, found: Found, mode: int) -> int | None:
        """Change the mode of a file where the kernel would not do as it does for a real user.

        That is the set-group-ID bit of a file in a group of others, setattr_prepare() in
        fs/attr.c, and files of the host's. Raises OSError: EPERM, EROFS, ENOSPC.
        """
        if found.file < 0:
            return None
        if not is_root(who) and not self._access.is_owner(call, who, found.file):
            with Change(found.file):
                raise failure(errno.EPERM)
        status = os.fstat(found.file)
        if stat.S_ISLNK(status.st_mode):
            return None
        kept = mode & 0o7777
        if mode & stat.S_ISGID and not self._identity.may_set_group_id(
            call.pid, who, self._access.group(call, found.file)
        ):
            kept &= ~stat.S_ISGID
        if self._host_files.contains(found.file, status):
            require_valid(call)
            self._host_files.set_mode(status, kept)
            return 0
        if kept == mode & 0o7777:
            return None
        require_valid(call)
        os.chmod(handle(found.file), kept)
        return 0

    def _walk(
        self, call: Call, who: Credentials, directory: int, path: int, flags: int
    ) -> Found | None:
        """Return where a path leads, None where the kernel is to find out. Raises OSError."""
        if not is_root(who):
            return self._access.walk(call, who, directory, path, flags)
        try:
            return Found(-1, b"", self._paths.open(call, directory, path, flags))
        except OSError:
            return None
