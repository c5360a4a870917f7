"""What a file looks like: stat(2) and statx(2) with the recorded owner and device filled in.

Where the kernel's own answer is right already (a file without a record, or an error), the
kernel gives it: the call is let through. Most of these calls never come here: ``native/loop.c``
answers them, by the same rules, and remembers what it has seen of files.
"""

from __future__ import annotations

import errno
import os
import struct

from runrootless.emulation.call import Call, write
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.processes.process_files import ProcessFiles
from runrootless.emulation.processes.status_files import StatusFiles
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, MODE_OFFSET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeAlias

    Convert: TypeAlias = Callable[[bytearray], bytes]

_DEVICE_INODE = struct.Struct("=QQ")
# From st_mode to st_rdev, and in that part st_uid with st_gid, and st_rdev.
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
            owner = self._unrecorded(call, file, device, inode, by_path)
            if (uid, gid) == owner and (device, inode) not in self._host_files.changes:
                return None
            _STATX_OWNER_MODE.pack_into(data, _STATX_OWNER_OFFSET, *owner, mode)
        else:
            if record.device_type:
                mode = mode & _PERMISSIONS | record.device_type
                numbers = os.major(record.device), os.minor(record.device)
                _STATX_RDEV.pack_into(data, _STATX_RDEV_OFFSET, *numbers)
            _STATX_OWNER_MODE.pack_into(data, _STATX_OWNER_OFFSET, record.uid, record.gid, mode)
        change = self._host_files.changes.get((device, inode))
        if change is not None:
            change.show_extended(data)
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
        device, inode = _DEVICE_INODE.unpack_from(data)
        owner = self._unrecorded(call, file, device, inode, by_path)
        if not self.look(file, data, owner):
            return None
        return self._write(call, buffer, convert(data) if convert else data)

    def look(self, file: int, data: bytearray, owner: tuple[int, int] = _ROOT) -> bool:
        """Fill in what is to be shown of an open file: ``data`` is what stat(2) says of it.

        It is ``owner``'s, unless there is a record of it. Return whether the kernel says
        something else.
        """
        device, inode = _DEVICE_INODE.unpack_from(data)
        truth = data[_SHOWN]
        (mode,) = _MODE.unpack_from(truth)
        record = self._ownership.find(file, mode, device, inode)
        shown = truth[:]
        if record is not None:
            owner = record.uid, record.gid
            if record.device_type:
                _MODE.pack_into(shown, 0, mode & _PERMISSIONS | record.device_type)
                _DEVICE.pack_into(shown, _RDEV_OFFSET, record.device)
        # Also where it is owned by someone whom the container has no number for:
        # root, to all that looks from inside.
        _OWNER.pack_into(shown, _OWNER_OFFSET, *owner)
        data[_SHOWN] = shown
        change = self._host_files.changes.get((device, inode))
        if change is not None:
            change.show(data)
            return True
        return shown != truth

    def _unrecorded(
        self, call: Call, file: int, device: int, inode: int, by_path: bool
    ) -> tuple[int, int]:
        """Return the owner of an open file if there is no record of it."""
        if device in self._makers.devices:
            return self._makers.owner(device, inode, self._identity.of(call.pid))
        if self._process_files.concerns(device):
            return self._process_files.owner(call, file, by_path) or _ROOT
        return _ROOT

    def _write(self, call: Call, buffer: int, data: bytes | bytearray) -> int:
        return 0 if write(self._memory, call, (buffer, data)) else -errno.EFAULT
