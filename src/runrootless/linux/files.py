"""Files and their metadata: stat(2), statx(2), xattr(7), as raw calls without exceptions.

The hot path asks for metadata that mostly is not there; an exception for each
"no such attribute" would cost more than the system call. Therefore these calls
return negative error numbers.
"""

from __future__ import annotations

import errno
import os
import struct

from runrootless.linux import syscall_numbers
from runrootless.linux.libc import (
    address,
    c_char_p,
    c_int,
    c_long,
    c_ulong,
    c_void_p,
    function,
    get_errno,
    silent_function,
)

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
O_PATH = 0o10000000

_MACHINE = os.uname().machine
_NUMBERS = syscall_numbers.NUMBERS[_MACHINE]

_syscall = function("syscall")
_getxattr = function("getxattr")
_lgetxattr = function("lgetxattr")
_setxattr = function("setxattr", c_char_p, c_char_p, c_char_p, c_ulong, c_int)
_removexattr = function("removexattr")

_NR_NEWFSTATAT = _NUMBERS["newfstatat"]
_NR_STATX = _NUMBERS["statx"]
# As unsigned, for ctypes tries that first.
_AT_FDCWD = AT_FDCWD & 0xFFFFFFFF

_silent_syscall = silent_function("syscall")

STAT_CALL = (_silent_syscall, _NR_NEWFSTATAT, _AT_FDCWD)
"""A function of the C library and its first arguments, for fstatat(2): a path, an address and
flags are to follow. That it fails is all that it tells."""

STAT_SIZE = 144 if _MACHINE == "x86_64" else 128
"""Size of ``struct stat`` of this machine in bytes."""

MODE_OFFSET = 24 if _MACHINE == "x86_64" else 16
"""Where ``struct stat`` of this machine has st_mode, an unsigned int."""

_DEVICE_OFFSET = 40 if _MACHINE == "x86_64" else 32
# st_dev, st_ino, st_mode and st_uid.
_FOUND = struct.Struct("=QQ8xII" if _MACHINE == "x86_64" else "=QQI4xI")

STATX_SIZE = 256
"""Size of ``struct statx`` in bytes, the same on every machine."""

_MODE = struct.Struct("=I")
_DEVICE = struct.Struct("=Q")
_XATTR_SIZE = 256
_XATTR_LIMIT = c_ulong(_XATTR_SIZE)
_STATX_BTIME = 0x800
_BIRTH = struct.Struct("=I76xqI")
_IDENTITY_MASK = c_long(0x101 | _STATX_BTIME)
_IDENTITY = struct.Struct("=I24xH2xQ40xqI44xII")


class Files:
    """Metadata calls on paths, with buffers that are reused: one thread only.

    Names are resolved by this process, relative to its own working directory.
    """

    def __init__(self) -> None:
        self.stat_buffer = bytearray(STAT_SIZE)
        """What the last successful ``stat`` filled in: this machine's ``struct stat``."""
        self.statx_buffer = bytearray(STATX_SIZE)
        """What the last successful ``statx`` filled in."""
        self.stat_address = c_void_p(address(self.stat_buffer))
        """Where that is."""
        self._statx_address = c_void_p(address(self.statx_buffer))
        self._birth_buffer = bytearray(STATX_SIZE)
        self._birth_address = c_void_p(address(self._birth_buffer))
        self._value = bytearray(_XATTR_SIZE)
        self._value_address = c_void_p(address(self._value))

    def stat(self, name: bytes, flags: int) -> int:
        """Fill ``stat_buffer``; return 0 or a negative error number. ``flags`` as fstatat(2)'s."""
        if _syscall(_NR_NEWFSTATAT, _AT_FDCWD, name, self.stat_address, flags) < 0:
            return -get_errno()
        return 0

    def ignores(self, flags: int) -> bool:
        """Return whether this kernel's fstatat(2) takes such flags for an empty path.

        Of a descriptor: Linux 6.11 and later ignores those there that it does not know.
        """
        descriptor = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            buffer = self._birth_address
            return bool(_syscall(_NR_NEWFSTATAT, descriptor, b"", buffer, c_long(flags)) == 0)
        finally:
            os.close(descriptor)

    def mode(self) -> int:
        """Return st_mode of the last successful ``stat``."""
        (mode,) = _MODE.unpack_from(self.stat_buffer, MODE_OFFSET)
        return int(mode)

    def found(self) -> tuple[int, int, int, int]:
        """Return st_dev, st_ino, st_mode and st_uid of the last successful ``stat``."""
        device, inode, mode, uid = _FOUND.unpack_from(self.stat_buffer)
        return device, inode, mode, uid

    def device(self) -> int:
        """Return st_rdev of the last successful ``stat``."""
        (device,) = _DEVICE.unpack_from(self.stat_buffer, _DEVICE_OFFSET)
        return int(device)

    def statx(self, name: bytes, flags: int, mask: int) -> int:
        """Fill ``statx_buffer``; return 0 or a negative error number."""
        if _syscall(_NR_STATX, _AT_FDCWD, name, flags, c_long(mask), self._statx_address) < 0:
            return -get_errno()
        return 0

    def birth_time(self, name: bytes, flags: int) -> int:
        """Return a file's time of birth in nanoseconds, 0 where its file system keeps none."""
        nofollow = flags & AT_SYMLINK_NOFOLLOW
        buffer = self._birth_address
        if _syscall(_NR_STATX, _AT_FDCWD, name, nofollow, c_long(_STATX_BTIME), buffer) < 0:
            return 0
        mask, seconds, nanoseconds = _BIRTH.unpack_from(self._birth_buffer)
        return seconds * 1_000_000_000 + nanoseconds if mask & _STATX_BTIME else 0

    def identity(self, name: bytes, flags: int) -> tuple[int, int, int, int] | None:
        """Return st_mode, st_dev, st_ino and the time of birth of a file, None if there is none.

        The time is in nanoseconds, 0 where the file system keeps none. ``flags`` may hold
        AT_SYMLINK_NOFOLLOW. The permissions in st_mode may be missing.
        """
        nofollow = flags & AT_SYMLINK_NOFOLLOW
        buffer = self._birth_address
        if _syscall(_NR_STATX, _AT_FDCWD, name, nofollow, _IDENTITY_MASK, buffer) < 0:
            return None
        mask, mode, inode, seconds, nanoseconds, major, minor = _IDENTITY.unpack_from(
            self._birth_buffer
        )
        birth = seconds * 1_000_000_000 + nanoseconds if mask & _STATX_BTIME else 0
        return mode, os.makedev(major, minor), inode, birth

    def getxattr(self, name: bytes, attribute: bytes, flags: int) -> bytes | int:
        """Return the attribute's value, or a negative error number.

        ``flags`` may hold AT_SYMLINK_NOFOLLOW. A value over 256 bytes is ERANGE.
        """
        call = _lgetxattr if flags & AT_SYMLINK_NOFOLLOW else _getxattr
        size: int = call(name, attribute, self._value_address, _XATTR_LIMIT)
        if size < 0:
            return -get_errno()
        return bytes(self._value[:size])

    def setxattr(self, name: bytes, attribute: bytes, value: bytes) -> int:
        """Set an attribute, following symlinks; return 0 or a negative error number."""
        if _setxattr(name, attribute, value, len(value), 0) < 0:
            return -get_errno()
        return 0

    def removexattr(self, name: bytes, attribute: bytes) -> int:
        """Remove an attribute, following symlinks; return 0 or a negative error number."""
        if _removexattr(name, attribute) < 0:
            return -get_errno()
        return 0

    def open_path(self, name: bytes, flags: int) -> int:
        """Return an O_PATH descriptor (close-on-exec), or a negative error number.

        ``flags`` may hold AT_SYMLINK_NOFOLLOW.
        """
        nofollow = os.O_NOFOLLOW if flags & AT_SYMLINK_NOFOLLOW else 0
        try:
            return os.open(name, O_PATH | os.O_CLOEXEC | nofollow)
        except OSError as error:
            return -(error.errno or errno.EIO)
