"""What a file looks like: stat(2) and statx(2) with the recorded owner and device filled in.

Where the kernel's own answer is right already (a file without a record, or an error), the
kernel gives it: the call is let through.
"""

from __future__ import annotations

import errno
import os
import struct
import time

from runrootless.emulation.call import Call, write
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.process_files import ProcessFiles
from runrootless.emulation.status_files import StatusFiles
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, MODE_OFFSET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias, TypeVar

    Known = TypeVar("Known")
    Convert: TypeAlias = Callable[[bytearray], bytes]

SAME_FILE = struct.Struct("=16s88x16s")
"""Of this machine's ``struct stat``: st_dev and st_ino, and st_ctime."""

# From st_mode to st_rdev, and in that part st_uid with st_gid, and st_rdev.
_DEVICE_INODE = struct.Struct("=QQ")
_CHANGE = struct.Struct("=104xqQ")
if os.uname().machine == "x86_64":
    SHOWN = slice(MODE_OFFSET, 48)
    _OWNER_OFFSET, _RDEV_OFFSET = 4, 16
else:
    SHOWN = slice(MODE_OFFSET, 40)
    _OWNER_OFFSET, _RDEV_OFFSET = 8, 16
_MODE = struct.Struct("=I")
_OWNER = struct.Struct("=II")
_DEVICE = struct.Struct("=Q")
_PERMISSIONS = 0o7777
_ROOT = (0, 0)
OF_PROCESS = b""
"""What stands for: this takes a closer look, at the process that the file is about."""

_SETTLED_LIMIT = 8192
# After how many seconds a change of a file changes st_ctime for sure, which is as fine as
# the kernel's ticks, unless its file system keeps whole or even seconds.
_TICKS = 0.1
_EVEN_SECONDS = 3

# struct statx: stx_uid, stx_gid and stx_mode; stx_ino; stx_rdev_*; stx_dev_*.
_STATX_OWNER_MODE = struct.Struct("=IIH")
_STATX_OWNER_OFFSET = 20
_STATX_INODE_OFFSET = 32
_STATX_RDEV = struct.Struct("=II")
_STATX_RDEV_OFFSET = 128
_STATX_DEV_OFFSET = 136
_STATX_TYPE_INODE = 0x101

UNKNOWN_FLAGS = 0xFFFFFFFF & ~0x7900
"""All but AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT, AT_EMPTY_PATH and AT_STATX_SYNC_TYPE."""

_SYNC_TYPE = 0x6000
"""``AT_STATX_SYNC_TYPE``."""


class Metadata(Handlers):
    """Handlers of the stat family."""

    def __init__(
        self, shared: Shared, process_files: ProcessFiles, status_files: StatusFiles
    ) -> None:
        super().__init__(shared)
        self._process_files = process_files
        self._status_files = status_files
        self._readers = status_files.readers
        self.plain: dict[bytes, bytes] = {}
        """By st_dev and st_ino, those of which the kernel tells the truth, and their st_ctime."""
        self.settled: dict[bytes, tuple[bytes, bytes]] = {}
        """Likewise: st_ctime, and what to show instead of what the kernel says."""

    def stat(self, call: Call) -> int | None:
        """stat(2)."""
        path, buffer = call.arguments[:2]
        return self.stat_path(call, AT_FDCWD, path, buffer, 0)

    def lstat(self, call: Call) -> int | None:
        """lstat(2)."""
        path, buffer = call.arguments[:2]
        return self.stat_path(call, AT_FDCWD, path, buffer, AT_SYMLINK_NOFOLLOW)

    def newfstatat(self, call: Call) -> int | None:
        """fstatat(2)."""
        _, path, buffer, flags = call.arguments[:4]
        if not path and flags & AT_EMPTY_PATH:
            # Since Linux 6.11 a null pointer counts as the empty path here.
            if flags & UNKNOWN_FLAGS and not self._files.ignores(flags & 0xFFFFFFFF):
                return None
            return self.stat_descriptor(call, call.descriptor(0), buffer)
        return self.stat_path(call, call.descriptor(0), path, buffer, flags)

    def fstat(self, call: Call) -> int | None:
        """fstat(2)."""
        return self.stat_descriptor(call, call.descriptor(0), call.arguments[1])

    def statx(self, call: Call) -> int | None:
        """statx(2)."""
        _, path, flags, mask, buffer = call.arguments[:5]
        flags &= 0xFFFFFFFF
        file, by_path = self._open(call, call.descriptor(0), path, flags)
        if file < 0:
            return None
        try:
            return self._statx(call, file, flags, mask, buffer, by_path)
        finally:
            os.close(file)

    def _statx(
        self, call: Call, file: int, flags: int, mask: int, buffer: int, by_path: bool
    ) -> int | None:
        data = self._files.statx_buffer
        # The type and the inode number are needed to find the record.
        wanted = mask & 0xFFFFFFFF | _STATX_TYPE_INODE
        if self._files.statx(file, flags & _SYNC_TYPE, wanted) < 0:
            return None
        uid, gid, mode = _STATX_OWNER_MODE.unpack_from(data, _STATX_OWNER_OFFSET)
        (inode,) = _DEVICE.unpack_from(data, _STATX_INODE_OFFSET)
        device = os.makedev(*_STATX_RDEV.unpack_from(data, _STATX_DEV_OFFSET))
        record = self._ownership.find(file, mode, device, inode)
        if record is None:
            owner = _ROOT
            if self._process_files.concerns(device):
                owner = self._process_files.owner(call, file, by_path) or _ROOT
            if (uid, gid) == owner:
                return None
            _STATX_OWNER_MODE.pack_into(data, _STATX_OWNER_OFFSET, *owner, mode)
        else:
            if record.device_type:
                mode = mode & _PERMISSIONS | record.device_type
                numbers = os.major(record.device), os.minor(record.device)
                _STATX_RDEV.pack_into(data, _STATX_RDEV_OFFSET, *numbers)
            _STATX_OWNER_MODE.pack_into(data, _STATX_OWNER_OFFSET, record.uid, record.gid, mode)
        return self._write(call, buffer, data)

    def stat_path(
        self,
        call: Call,
        directory: int,
        path: int,
        buffer: int,
        flags: int,
        convert: Convert | None = None,
    ) -> int | None:
        """Answer any call that asks by path; ``convert`` makes its structure of struct stat."""
        file, by_path = self._open(call, directory, path, flags)
        if file < 0:
            return None
        try:
            return self._stat(call, file, buffer, convert, by_path)
        finally:
            os.close(file)

    def stat_descriptor(
        self, call: Call, descriptor: int, buffer: int, convert: Convert | None = None
    ) -> int | None:
        """Answer any call that asks by descriptor."""
        self._leave(call)
        try:
            file = self._paths.open_descriptor(call.pid, descriptor)
        except OSError:
            return None
        try:
            return self._stat(call, file, buffer, convert, False)
        finally:
            os.close(file)

    def _open(self, call: Call, directory: int, address: int, flags: int) -> tuple[int, bool]:
        """Return a descriptor of the file that is asked for, -1 where the kernel is to answer.

        And whether it is asked for by a path from the root that is followed.
        """
        try:
            is_null = bool(flags & AT_EMPTY_PATH) and not address
            path = b"" if is_null else self._paths.read(call, address)
            if flags & UNKNOWN_FLAGS and (
                path or directory < 0 or not self._files.ignores(flags & 0xFFFFFFFF)
            ):
                # Of descriptors the kernel may take flags that it does not know.
                return -1, False
            by_path = path.startswith(b"/") and not flags & AT_SYMLINK_NOFOLLOW
            self._leave(call)
            return self._paths.open_path(call.pid, directory, path, flags), by_path
        except OSError:
            return -1, False

    def _leave(self, call: Call) -> None:
        """Take what was shown to the caller alone out of its way."""
        if call.pid in self._readers:
            self._status_files.leave(call.pid)

    def _stat(
        self, call: Call, file: int, buffer: int, convert: Convert | None, by_path: bool
    ) -> int | None:
        if self._files.stat(file) < 0:
            return None
        data = self._files.stat_buffer
        shown = self.shown(file, data)
        if shown is OF_PROCESS:
            owner = self._process_files.owner(call, file, by_path)
            shown, _ = self._recorded(file, data, owner or _ROOT)
        if shown is None:
            return None
        data[SHOWN] = shown
        return self._write(call, buffer, convert(data) if convert else data)

    def shown(self, file: int, data: bytearray) -> bytes | None:
        """Return what to show of an open file, from st_mode to st_rdev; None if that is the truth.

        OF_PROCESS is for those in /proc, whose owner depends on more. Of others it is
        remembered until st_ctime is another one: no attribute changes without it.
        """
        key, changed = SAME_FILE.unpack_from(data)
        if self.plain.get(key) == changed:
            return None
        settled = self.settled.get(key)
        if settled is not None and settled[0] == changed:
            return settled[1]
        if self._process_files.concerns(_DEVICE_INODE.unpack(key)[0]):
            return OF_PROCESS
        shown, carried = self._recorded(file, data, _ROOT)
        if carried:
            seconds, nanoseconds = _CHANGE.unpack_from(data)
            # A file that has just changed may change again without its time doing so.
            since = time.time() - seconds - nanoseconds / 1e9
            if since > (_TICKS if nanoseconds else _EVEN_SECONDS):
                if shown is None:
                    _remember(self.plain, key, changed)
                else:
                    _remember(self.settled, key, (changed, shown))
        return shown

    def _recorded(
        self, file: int, data: bytearray, owner: tuple[int, int]
    ) -> tuple[bytes | None, bool]:
        """Return the same of a file that is ``owner``'s, unless there is a record of it.

        And whether the file itself carries its record, or would do so.
        """
        device, inode = _DEVICE_INODE.unpack_from(data)
        truth = data[SHOWN]
        (mode,) = _MODE.unpack_from(truth)
        record, carried = self._ownership.find_with_place(file, mode, device, inode)
        shown = truth[:]
        if record is not None:
            owner = record.uid, record.gid
            if record.device_type:
                _MODE.pack_into(shown, 0, mode & _PERMISSIONS | record.device_type)
                _DEVICE.pack_into(shown, _RDEV_OFFSET, record.device)
        # Also where it is owned by someone whom the container has no number for:
        # root, to all that looks from inside.
        _OWNER.pack_into(shown, _OWNER_OFFSET, *owner)
        return None if shown == truth else bytes(shown), carried

    def _write(self, call: Call, buffer: int, data: bytes | bytearray) -> int:
        return 0 if write(self._memory, call, (buffer, data)) else -errno.EFAULT


def _remember(known: dict[bytes, Known], key: bytes, what: Known) -> None:
    if len(known) >= _SETTLED_LIMIT:
        known.clear()
    known[key] = what
