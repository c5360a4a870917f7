"""What a file looks like: stat(2) and statx(2) with the recorded owner and device filled in.

This is the hot path. Where the kernel's own answer is right already (a file without a
record, or an error), the kernel gives it: the call is let through.
"""

from __future__ import annotations

import errno
import os
import struct
import time

from runrootless.emulation.call import UNDECIDED, Call, require_valid
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.paths import OWN_PLACES
from runrootless.emulation.process_files import ProcessFiles
from runrootless.emulation.status_files import StatusFiles
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, MODE_OFFSET
from runrootless.linux.seccomp import IDENTIFIER, is_valid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Convert: TypeAlias = Callable[[bytearray], bytes]

# struct stat of this machine: st_dev and st_ino, st_ctime; from st_mode to st_rdev;
# and in that part st_uid with st_gid, and st_rdev.
_SAME_FILE = struct.Struct("=16s88x16s")
_DEVICE_INODE = struct.Struct("=QQ")
_CHANGE = struct.Struct("=104xqQ")
if os.uname().machine == "x86_64":
    _SHOWN = slice(MODE_OFFSET, 48)
    _OWNER_OFFSET, _RDEV_OFFSET = 4, 16
else:
    _SHOWN = slice(MODE_OFFSET, 40)
    _OWNER_OFFSET, _RDEV_OFFSET = 8, 16
_MODE = struct.Struct("=I")
_OWNER = struct.Struct("=II")
_DEVICE = struct.Struct("=Q")
_PERMISSIONS = 0o7777
_ROOT = (0, 0)
_OF_PROCESS = b""
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

# The process ID, directory, path, buffer and flags of newfstatat(2) in a notification.
_NEWFSTATAT = struct.Struct("=8xI20xQQQQ16x")
_CURRENT = AT_FDCWD & 0xFFFFFFFF
_LAST_DESCRIPTOR = 0x7FFFFFFF
# All but AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT, AT_EMPTY_PATH and AT_STATX_SYNC_TYPE.
_UNKNOWN_FLAGS = 0xFFFFFFFF & ~0x7900


class Metadata(Handlers):
    """Handlers of the stat family."""

    def __init__(
        self, shared: Shared, process_files: ProcessFiles, status_files: StatusFiles
    ) -> None:
        super().__init__(shared)
        self._process_files = process_files
        self._status_files = status_files
        self._readers = status_files.readers
        # By st_dev and st_ino: st_ctime, and what to show instead of what the kernel says.
        self._settled: dict[bytes, tuple[bytes, bytes | None]] = {}

    def quick(self, notification: bytes, listener: int) -> int | None:
        """Return what ``newfstatat`` does, or UNDECIDED where that has to take a closer look.

        A shorter way for what most of all notifications are about. To be asked where the
        caller's view is the agent's.
        """
        pid, directory, path, buffer, flags = _NEWFSTATAT.unpack(notification)
        text = self._memory.read_string(pid, path)
        nofollow = flags & AT_SYMLINK_NOFOLLOW
        if text:
            if text.startswith(OWN_PLACES):
                return UNDECIDED
            directory &= 0xFFFFFFFF
            directory = AT_FDCWD if directory == _CURRENT else directory
            name = self._paths.name_of(pid, directory, text, nofollow)
        elif text is None or not flags & AT_EMPTY_PATH or directory > _LAST_DESCRIPTOR:
            return UNDECIDED
        else:
            name, nofollow = self._paths.descriptor_name(pid, directory), 0
        if pid in self._readers or flags & _UNKNOWN_FLAGS:
            return UNDECIDED
        if self._files.stat(name, nofollow) < 0:
            return None
        data = self._files.stat_buffer
        shown = self._shown(name, nofollow, data)
        if shown is None:
            return None
        if shown is _OF_PROCESS:
            return UNDECIDED
        data[_SHOWN] = shown
        if not is_valid(listener, notification[IDENTIFIER]):
            return -errno.EINTR
        return 0 if self._memory.write(pid, buffer, data) else -errno.EFAULT

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
            if flags & _UNKNOWN_FLAGS and not self._files.ignores(flags & 0xFFFFFFFF):
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
        try:
            if not path and flags & AT_EMPTY_PATH:
                name, nofollow = self._paths.descriptor_name(call.pid, call.descriptor(0)), 0
            else:
                name, nofollow = self._paths.name(call, call.descriptor(0), path, flags)
        except OSError:
            return None
        if call.pid in self._readers:
            self._status_files.leave(call.pid)
        data = self._files.statx_buffer
        # The type and the inode number are needed to find the record.
        kernel_flags = flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) | nofollow
        wanted = mask & 0xFFFFFFFF | _STATX_TYPE_INODE
        if self._files.statx(name, kernel_flags, wanted) < 0:
            return None
        uid, gid, mode = _STATX_OWNER_MODE.unpack_from(data, _STATX_OWNER_OFFSET)
        (inode,) = _DEVICE.unpack_from(data, _STATX_INODE_OFFSET)
        device = os.makedev(*_STATX_RDEV.unpack_from(data, _STATX_DEV_OFFSET))
        record = self._ownership.find(name, nofollow, mode, device, inode)
        if record is None:
            owner = _ROOT
            if self._process_files.concerns(device):
                owner = self._process_files.owner(call, name, nofollow) or _ROOT
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
        try:
            name, nofollow = self._paths.name(call, directory, path, flags)
        except OSError:
            return None
        if flags & _UNKNOWN_FLAGS and not (
            directory >= 0
            and name == self._paths.descriptor_name(call.pid, directory)
            and self._files.ignores(flags & 0xFFFFFFFF)
        ):
            return None
        return self._stat(call, name, nofollow, buffer, convert)

    def stat_descriptor(
        self, call: Call, descriptor: int, buffer: int, convert: Convert | None = None
    ) -> int | None:
        """Answer any call that asks by descriptor."""
        name = self._paths.descriptor_name(call.pid, descriptor)
        return self._stat(call, name, 0, buffer, convert)

    def _stat(
        self, call: Call, name: bytes, flags: int, buffer: int, convert: Convert | None
    ) -> int | None:
        if call.pid in self._readers:
            self._status_files.leave(call.pid)
        if self._files.stat(name, flags) < 0:
            return None
        data = self._files.stat_buffer
        shown = self._shown(name, flags, data)
        if shown is _OF_PROCESS:
            owner = self._process_files.owner(call, name, flags)
            shown, _ = self._recorded(name, flags, data, owner or _ROOT)
        if shown is None:
            return None
        data[_SHOWN] = shown
        return self._write(call, buffer, convert(data) if convert else data)

    def _shown(self, name: bytes, flags: int, data: bytearray) -> bytes | None:
        """Return what to show of a file, from st_mode to st_rdev; None if that is the truth.

        _OF_PROCESS is for those in /proc, whose owner depends on more. Of others it is
        remembered until st_ctime is another one: no attribute changes without it.
        """
        file, changed = _SAME_FILE.unpack_from(data)
        settled = self._settled.get(file)
        if settled is not None and settled[0] == changed:
            return settled[1]
        if self._process_files.concerns(_DEVICE_INODE.unpack(file)[0]):
            return _OF_PROCESS
        shown, carried = self._recorded(name, flags, data, _ROOT)
        if carried:
            seconds, nanoseconds = _CHANGE.unpack_from(data)
            # A file that has just changed may change again without its time doing so.
            since = time.time() - seconds - nanoseconds / 1e9
            if since > (_TICKS if nanoseconds else _EVEN_SECONDS):
                if len(self._settled) >= _SETTLED_LIMIT:
                    self._settled.clear()
                self._settled[file] = (changed, shown)
        return shown

    def _recorded(
        self, name: bytes, flags: int, data: bytearray, owner: tuple[int, int]
    ) -> tuple[bytes | None, bool]:
        """Return the same of a file that is ``owner``'s, unless there is a record of it.

        And whether the file itself carries its record, or would do so.
        """
        device, inode = _DEVICE_INODE.unpack_from(data)
        truth = data[_SHOWN]
        (mode,) = _MODE.unpack_from(truth)
        record, carried = self._ownership.find_with_place(name, flags, mode, device, inode)
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
        require_valid(call)
        return 0 if self._memory.write(call.pid, buffer, data) else -errno.EFAULT
