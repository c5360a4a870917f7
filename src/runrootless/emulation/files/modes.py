"""Modes and times that the kernel would not set for the container's user.

Those are of files that the container has from the host's kernel, and of emulated device nodes
that the caller has open: what it holds is the host's device. All else is the kernel's.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time

from runrootless.emulation.call import Call, Change, failure, require_valid
from runrootless.emulation.callers.credentials import CAP_FOWNER
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.paths.resolution import Paths
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, handle
from runrootless.linux.memory import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import TypeAlias

    Times: TypeAlias = "Sequence[int | None] | None"

# An array of two ``struct timespec`` or ``struct timeval``, and ``struct utimbuf``.
PARTS = struct.Struct("=4q")
PARTS_32 = struct.Struct("=4i")
SECONDS = struct.Struct("=2q")
SECONDS_32 = struct.Struct("=2i")
_SECOND = 10**9
_NOW, _OMIT = 0x3FFFFFFF, 0x3FFFFFFE
_PLACE_FLAGS = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH
_PERMISSIONS = 0o7777


class Modes(Handlers):
    """Handlers of these calls. With ``checked`` somebody has asked by now whether they may be."""

    def __init__(self, shared: Shared, checked: bool) -> None:
        super().__init__(shared)
        self._checked = checked

    def chmod(self, call: Call) -> int | None:
        """chmod(2)."""
        path, mode = call.arguments[:2]
        return self.set_mode_at(call, AT_FDCWD, path, mode, 0)

    def fchmodat(self, call: Call) -> int | None:
        """The system call of fchmodat(2), which takes no flags."""
        _, path, mode = call.arguments[:3]
        return self.set_mode_at(call, call.descriptor(0), path, mode, 0)

    def fchmod(self, call: Call) -> int | None:
        """fchmod(2)."""
        file = self._paths.open_file(call, call.descriptor(0))
        try:
            return self.set_mode(call, file, call.arguments[1])
        finally:
            os.close(file)

    def fchmodat2(self, call: Call) -> int | None:
        """fchmodat2(2)."""
        _, path, mode, flags = call.arguments[:4]
        return self.set_mode_at(call, call.descriptor(0), path, mode, flags)

    def utimensat(self, call: Call) -> int | None:
        """utimensat(2)."""
        return self._set_times(call, PARTS)

    def utimensat_32(self, call: Call) -> int | None:
        """utimensat(2) of 32-bit programs, whose seconds have 32 bits."""
        return self._set_times(call, PARTS_32)

    def set_mode_at(
        self, call: Call, directory: int, path: int, mode: int, flags: int
    ) -> int | None:
        """Do what any call of the chmod family asks for by path; None where that is the kernel's.

        Raises OSError: EPERM, EROFS, ENOSPC.
        """
        if flags & 0xFFFFFFFF & ~_PLACE_FLAGS:
            return None
        file = open_changed(self._paths, call, directory, path, flags)
        if file < 0:
            return None
        try:
            return self.set_mode(call, file, mode)
        finally:
            os.close(file)

    def set_mode(self, call: Call, file: int, mode: int) -> int | None:
        """Do the same to an open file.

        The set-group-ID bit of a file in a group of others goes by setattr_prepare() in fs/attr.c.
        """
        status = os.fstat(file)
        if stat.S_ISLNK(status.st_mode):
            return None
        kept = mode & _PERMISSIONS
        is_host, is_node = self._kinds(file, status)
        if kept & stat.S_ISGID:
            group = (self._kept_owner(call, file, status) or (0, 0))[1]
            who = self._identity.of(call.pid)
            if not self._identity.may_set_group_id(call.pid, who, group):
                kept &= ~stat.S_ISGID
        if not (is_host or is_node) and kept == mode & _PERMISSIONS:
            return None
        self._require_owner(call, file, status, False)
        require_valid(call)
        if is_host:
            self._host_files.set_mode(status, kept)
        else:
            os.chmod(handle(file), kept)
        return 0

    def set_times_at(
        self, call: Call, directory: int, path: int, times: Times, flags: int
    ) -> int | None:
        """Do what any call of the utime family asks for; None where that is the kernel's.

        ``times`` are in nanoseconds, None for now, and an item of it None to keep that one.
        Raises OSError: EACCES, EPERM, EROFS, ENOSPC.
        """
        if flags & 0xFFFFFFFF & ~_PLACE_FLAGS:
            return None
        if path:
            file = open_changed(self._paths, call, directory, path, flags)
        elif directory >= 0 and not flags:
            file = self._paths.open_file(call, directory)
        else:
            return None
        if file < 0:
            return None
        try:
            status = os.fstat(file)
            is_host, is_node = self._kinds(file, status)
            if not (is_host or is_node):
                return None
            self._require_owner(call, file, status, times is None)
            require_valid(call)
            if is_host:
                self._host_files.set_times(status, times or (time.time_ns(),) * 2)
            elif times is None:
                os.utime(handle(file))
            else:
                kept = (status.st_atime_ns, status.st_mtime_ns)
                atime, mtime = (old if new is None else new for old, new in zip(kept, times))
                os.utime(handle(file), ns=(atime, mtime))
            return 0
        finally:
            os.close(file)

    def _set_times(self, call: Call, structure: struct.Struct) -> int | None:
        _, path, _, flags = call.arguments[:4]
        found = read_times(self._memory, call, structure)
        if found is None:
            return None
        return self.set_times_at(call, call.descriptor(0), path, found[0], flags)

    def _kinds(self, file: int, status: os.stat_result) -> tuple[bool, bool]:
        """Return whether a file is one of the host's, and whether it is an emulated node."""
        if stat.S_ISCHR(status.st_mode) and not status.st_rdev:
            # Maybe a whiteout of somebody else's: the kernel would do the same to that.
            return False, True
        return self._host_files.contains(file, status), False

    def _require_owner(self, call: Call, file: int, status: os.stat_result, is_now: bool) -> None:
        """Require that a file's mode, or its times, may be changed. Raises OSError."""
        if self._checked:
            return
        who = self._identity.of(call.pid)
        owner, group = self._kept_owner(call, file, status) or (0, 0)
        if owner == who.uids[3] or self._identity.may(call.pid, who, CAP_FOWNER):
            return
        mode = self._host_files.mode(status)
        with Change(file):
            if not is_now:
                raise failure(errno.EPERM)
            if not (mode >> 3 if who.in_group(group) else mode) & stat.S_IWOTH:
                raise failure(errno.EACCES)


def open_changed(paths: Paths, call: Call, directory: int, path: int, flags: int) -> int:
    """Return a descriptor of what a path leads to, -1 where the kernel is to say why not."""
    try:
        return paths.open(call, directory, path, flags)
    except OSError:
        return -1


def read_times(memory: Memory, call: Call, structure: struct.Struct) -> tuple[Times] | None:
    """Return the times of utimensat(2) as ``Modes.set_times_at`` takes them, in a tuple.

    None where the kernel is to answer: they cannot be read, cannot be, or none is set.
    """
    address = call.arguments[2]
    if not address:
        return (None,)
    data = memory.read(call.pid, address, structure.size)
    if data is None:
        return None
    numbers = structure.unpack(data)
    parts = numbers[1::2]
    if not all(0 <= part < _SECOND or part in (_NOW, _OMIT) for part in parts):
        return None
    if parts == (_OMIT, _OMIT):
        return None
    if parts == (_NOW, _NOW):
        return (None,)
    now = time.time_ns()
    values = [
        {_NOW: now, _OMIT: None}.get(part, seconds * _SECOND + part)
        for seconds, part in zip(numbers[::2], parts)
    ]
    return (values,)


def read_old_times(
    memory: Memory, call: Call, address: int, structure: struct.Struct
) -> tuple[Times] | None:
    """Return the times of utime(2), utimes(2) and futimesat(2) likewise."""
    if not address:
        return (None,)
    data = memory.read(call.pid, address, structure.size)
    if data is None:
        return None
    numbers = structure.unpack(data)
    if len(numbers) == 2:
        return ([number * _SECOND for number in numbers],)
    if not all(0 <= part < 1000000 for part in numbers[1::2]):
        return None
    pairs = zip(numbers[::2], numbers[1::2])
    return ([seconds * _SECOND + part * 1000 for seconds, part in pairs],)
