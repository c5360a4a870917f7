"""What a file looks like: stat(2) and statx(2) with the recorded owner and device filled in.

This is the hot path. Where the kernel's own answer is right already (a file without a
record, or an error), the kernel gives it: the call is let through.
"""

from __future__ import annotations

import errno
import os
import struct

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.ownership import Ownership
from runrootless.emulation.paths import Paths
from runrootless.emulation.process_files import ProcessFiles
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, MODE_OFFSET, Files
from runrootless.linux.memory import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Convert: TypeAlias = Callable[[bytearray], bytes]

_DEVICE_INODE = struct.Struct("=QQ")
_DEVICE = struct.Struct("=Q")
_PERMISSIONS = 0o7777
_ROOT = (0, 0)

# struct stat of this machine: st_mode, st_uid and st_gid, and st_rdev.
if os.uname().machine == "x86_64":
    _OWNER_OFFSET, _RDEV_OFFSET = 28, 40
else:
    _OWNER_OFFSET, _RDEV_OFFSET = 24, 32
_CHANGE_TIME_OFFSET = 104
_CHANGE_TIME = struct.Struct("=qq")
_MODE = struct.Struct("=I")
_OWNER = struct.Struct("=II")

# struct statx: stx_uid, stx_gid and stx_mode; stx_ino; stx_rdev_*; stx_dev_*.
_STATX_OWNER_MODE = struct.Struct("=IIH")
_STATX_OWNER_OFFSET = 20
_STATX_INODE_OFFSET = 32
_STATX_RDEV = struct.Struct("=II")
_STATX_RDEV_OFFSET = 128
_STATX_DEV_OFFSET = 136
_STATX_TYPE_INODE = 0x101


class Metadata:
    """Handlers of the stat family."""

    def __init__(
        self,
        memory: Memory,
        files: Files,
        paths: Paths,
        ownership: Ownership,
        process_files: ProcessFiles,
    ) -> None:
        self._memory = memory
        self._files = files
        self._paths = paths
        self._ownership = ownership
        self._process_files = process_files

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
                name, nofollow = self._paths.descriptor_name(call, call.descriptor(0)), 0
            else:
                name, nofollow = self._paths.name(call, call.descriptor(0), path, flags)
        except OSError:
            return None
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
                owner = self._process_files.owner(name, nofollow) or _ROOT
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
            name, flags = self._paths.name(call, directory, path, flags)
        except OSError:
            return None
        return self._stat(call, name, flags, buffer, convert)

    def stat_descriptor(
        self, call: Call, descriptor: int, buffer: int, convert: Convert | None = None
    ) -> int | None:
        """Answer any call that asks by descriptor."""
        name = self._paths.descriptor_name(call, descriptor)
        return self._stat(call, name, 0, buffer, convert)

    def _stat(
        self, call: Call, name: bytes, flags: int, buffer: int, convert: Convert | None
    ) -> int | None:
        if self._files.stat(name, flags) < 0:
            return None
        data = self._files.stat_buffer
        device, inode = _DEVICE_INODE.unpack_from(data)
        (mode,) = _MODE.unpack_from(data, MODE_OFFSET)
        changed = _CHANGE_TIME.unpack_from(data, _CHANGE_TIME_OFFSET)
        record = self._ownership.find(name, flags, mode, device, inode, changed)
        if record is None:
            owner = _ROOT
            if self._process_files.concerns(device):
                owner = self._process_files.owner(name, flags) or _ROOT
            if _OWNER.unpack_from(data, _OWNER_OFFSET) == owner:
                return None
            # Also where it is owned by someone whom the container has no number for:
            # root, to all that looks from inside.
            _OWNER.pack_into(data, _OWNER_OFFSET, *owner)
        else:
            _OWNER.pack_into(data, _OWNER_OFFSET, record.uid, record.gid)
            if record.device_type:
                mode = mode & _PERMISSIONS | record.device_type
                _MODE.pack_into(data, MODE_OFFSET, mode)
                _DEVICE.pack_into(data, _RDEV_OFFSET, record.device)
        return self._write(call, buffer, convert(data) if convert else data)

    def _write(self, call: Call, buffer: int, data: bytes | bytearray) -> int:
        require_valid(call)
        return 0 if self._memory.write(call.pid, buffer, data) else -errno.EFAULT
