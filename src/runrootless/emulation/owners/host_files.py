"""Files of the host's kernel in the container, changed for the container alone.

The device nodes in its /dev are the host's own, and the root of a procfs belongs to the host's
root. Real root of a container may change mode, times and owner of its own nodes. So the
container is shown such changes as long as the agent lasts, and the files stay as they are.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time

from runrootless.emulation.apart import Apart
from runrootless.emulation.call import failure
from runrootless.emulation.paths.procfs import ROOT_INODE
from runrootless.emulation.stores.lasting_map import LastingMap
from runrootless.linux.files import MODE_OFFSET, handle, is_procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LIMIT = 1024
_PERMISSIONS = 0o7777
_MODE = struct.Struct("=I")
_TIME = struct.Struct("=qQ")
# Where struct stat, of all machines, has st_atime, st_mtime and st_ctime.
_TIME_OFFSETS = (72, 88, 104)
_STATX_MODE = struct.Struct("=H")
_STATX_MODE_OFFSET = 28
_STATX_TIME = struct.Struct("=qI")
# stx_atime, stx_mtime and stx_ctime.
_STATX_TIME_OFFSETS = (64, 112, 96)
_SECOND = 10**9
# s_time_min and s_time_max of tmpfs and procfs.
_ENDS = (-(2**63), 2**63 - 1)
# Those in the root of a procfs. Links of processes have other names, and owners of their own.
_PROC_LINKS = (b"self", b"thread-self", b"mounts", b"net")


class Change:
    """What the container sees of a file: permissions, None for the true ones, and times.

    These are st_atime, st_mtime and st_ctime, in nanoseconds, None for the true ones.
    """

    __slots__ = ("mode", "times")

    def __init__(self) -> None:
        self.mode: int | None = None
        self.times: list[int | None] = [None, None, None]

    def show(self, data: bytearray) -> None:
        """Put it into a ``struct stat`` of this machine."""
        if self.mode is not None:
            (mode,) = _MODE.unpack_from(data, MODE_OFFSET)
            _MODE.pack_into(data, MODE_OFFSET, mode & ~_PERMISSIONS | self.mode)
        for offset, value in zip(_TIME_OFFSETS, self.times):
            if value is not None:
                _TIME.pack_into(data, offset, *divmod(value, _SECOND))

    def show_extended(self, data: bytearray) -> None:
        """Put it into a ``struct statx``."""
        if self.mode is not None:
            (mode,) = _STATX_MODE.unpack_from(data, _STATX_MODE_OFFSET)
            _STATX_MODE.pack_into(data, _STATX_MODE_OFFSET, mode & ~_PERMISSIONS | self.mode)
        for offset, value in zip(_STATX_TIME_OFFSETS, self.times):
            if value is not None:
                _STATX_TIME.pack_into(data, offset, *divmod(value, _SECOND))


class HostFiles:
    """Knows such files and their changes. Any thread may call any method."""

    def __init__(self, apart: Apart) -> None:
        self._apart = apart
        self.changes: dict[tuple[int, int], Change] = {}
        """By st_dev and st_ino."""
        self.kept = LastingMap("host-files", _LIMIT)

    def take_over(self) -> None:
        """Begin with what the worker before has kept, if there was one. Raises OSError."""
        self.kept.take_over()
        for (device, inode), (mode, *times) in self.kept.items():
            change = self.changes[int(device), int(inode)] = Change()
            change.mode, change.times = mode, times
            self._apart.add(int(device), int(inode))

    def contains(self, file: int, status: os.stat_result) -> bool:
        """Return whether an open file, which stat(2) says this of, is such a one."""
        # The container's own have an owner that it has a number for, which is 0.
        if not status.st_uid or os.fstatvfs(file).f_flag & os.ST_RDONLY:
            return False
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            return True
        if stat.S_ISLNK(status.st_mode):
            return is_procfs(file) and os.readlink(handle(file)).rpartition(b"/")[2] in _PROC_LINKS
        return status.st_ino == ROOT_INODE and is_procfs(file)

    def mode(self, status: os.stat_result) -> int:
        """Return st_mode as it is shown of a file that stat(2) says this of."""
        change = self.changes.get((status.st_dev, status.st_ino)) if self.changes else None
        if change is None or change.mode is None:
            return status.st_mode
        return status.st_mode & ~_PERMISSIONS | change.mode

    def set_mode(self, status: os.stat_result, mode: int) -> None:
        """Change the permissions of a file. Raises OSError: ENOSPC, ENOMEM."""
        change = self._of(status)
        change.mode = mode & _PERMISSIONS
        self._keep(status, change)

    def set_times(self, status: os.stat_result, times: Sequence[int | None]) -> None:
        """Set st_atime and st_mtime, in nanoseconds, None to keep.

        At either end of what the kernel can say there are whole seconds: timestamp_truncate() in
        fs/inode.c. Raises OSError: ENOSPC, ENOMEM.
        """
        change = self._of(status)
        for index, value in enumerate(times):
            if value is not None:
                seconds = value // _SECOND
                change.times[index] = seconds * _SECOND if seconds in _ENDS else value
        self._keep(status, change)

    def _keep(self, status: os.stat_result, change: Change) -> None:
        change.times[2] = time.time_ns()
        self.kept.set((status.st_dev, status.st_ino), (change.mode, *change.times))

    def _of(self, status: os.stat_result) -> Change:
        key = status.st_dev, status.st_ino
        if key not in self.changes and len(self.changes) >= _LIMIT:
            raise failure(errno.ENOSPC)
        change = self.changes.setdefault(key, Change())
        self._apart.add(*key)
        return change
