"""Files and their metadata: openat2(2), stat(2), statx(2), xattr(7), as raw calls.

The hot path asks for metadata that mostly is not there; an exception for each
"no such attribute" would cost more than the system call. Therefore these calls
return negative error numbers.
"""

from __future__ import annotations

import os
import stat
import struct
from _thread import _local

from runrootless.linux import eventfd, syscall_numbers
from runrootless.linux.libc import (
    address,
    c_char_p,
    c_int,
    c_long,
    c_ulong,
    c_void_p,
    check,
    function,
    get_errno,
)

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
O_PATH = 0o10000000

RESOLVE_NO_XDEV = 1
RESOLVE_NO_MAGICLINKS = 2

ST_NOSYMFOLLOW = 0x2000
"""Of statvfs(3): no symlink on the mount is followed, Linux 5.10."""

_MACHINE = os.uname().machine
_NUMBERS = syscall_numbers.NUMBERS[_MACHINE]

_syscall = function("syscall")
_getxattr = function("getxattr")
_setxattr = function("setxattr", c_char_p, c_char_p, c_char_p, c_ulong, c_int)
_removexattr = function("removexattr")
_fstatfs = function("fstatfs")

_NR_NEWFSTATAT = _NUMBERS["newfstatat"]
_NR_OPENAT2 = _NUMBERS["openat2"]
_NR_STATX = _NUMBERS["statx"]
_NR_FACCESSAT2 = _NUMBERS["faccessat2"]
_AT_EACCESS = 0x200
# As unsigned, for ctypes tries that first.
_AT_FDCWD = AT_FDCWD & 0xFFFFFFFF

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
_AT_STATX_DONT_SYNC = 0x4000
_STATX_MNT_ID = 0x1000
_PLACE_MASK = c_long(_STATX_MNT_ID | 0x100)
# stx_ino, stx_dev_major, stx_dev_minor and stx_mnt_id.
_PLACE = struct.Struct("=32xQ96xIIQ")
_OPEN_HOW = struct.Struct("=3Q")
_OPEN_HOW_SIZE = c_ulong(_OPEN_HOW.size)
# <linux/magic.h>, and of struct statfs what is needed, within more than its size.
_INT = 0xFFFFFFFF
_PROC_SUPER_MAGIC = 0x9FA0
_OVERLAYFS_SUPER_MAGIC = 0x794C7630
_DEVPTS_SUPER_MAGIC = 0x1CD1
_STATFS_SIZE = 256
_STATFS_TYPE = struct.Struct("@l")


def handle(file: int) -> bytes:
    """Return a name that leads to an open file, for the calls that only take names.

    It is relative to /proc, the working directory of whoever uses this. Of a symlink it
    leads to the symlink itself.
    """
    return b"self/fd/%d" % file


def touch(file: int) -> None:
    """Change nothing of an open file but its st_ctime. Raises OSError: EROFS, EPERM."""
    mode = os.fstat(file).st_mode
    if mode & (stat.S_ISUID | stat.S_ISGID):
        # chown(2) would clear these.
        os.chmod(handle(file), stat.S_IMODE(mode))
    else:
        os.chown(handle(file), -1, -1)


class Files(_local):
    """Calls on files that this process holds a descriptor of, O_PATH being enough.

    Buffers are reused, and each thread has its own: the result of a call is there until the
    thread's next call of the same kind.
    """

    def __init__(self) -> None:
        self.stat_buffer = bytearray(STAT_SIZE)
        """What the last successful ``stat`` filled in: this machine's ``struct stat``."""
        self.statx_buffer = bytearray(STATX_SIZE)
        """What the last successful ``statx`` filled in."""
        self._stat_address = c_void_p(address(self.stat_buffer))
        self._statx_address = c_void_p(address(self.statx_buffer))
        self._birth_buffer = bytearray(STATX_SIZE)
        self._birth_address = c_void_p(address(self._birth_buffer))
        self._value = bytearray(_XATTR_SIZE)
        self._value_address = c_void_p(address(self._value))

    def resolve(self, directory: int, path: bytes, flags: int, resolve: int) -> int:
        """Return an O_PATH descriptor (close-on-exec) of a file, or a negative error number.

        ``flags`` may hold O_NOFOLLOW and O_DIRECTORY, and ``resolve`` RESOLVE_*: openat2(2).
        """
        how = _OPEN_HOW.pack(flags | O_PATH | os.O_CLOEXEC, 0, resolve)
        fd: int = _syscall(_NR_OPENAT2, directory & _INT, path, how, _OPEN_HOW_SIZE)
        return fd if fd >= 0 else -get_errno()

    def stat(self, file: int) -> int:
        """Fill ``stat_buffer``; return 0 or a negative error number."""
        if _syscall(_NR_NEWFSTATAT, file, b"", self._stat_address, AT_EMPTY_PATH) < 0:
            return -get_errno()
        return 0

    def ignores(self, flags: int) -> bool:
        """Return whether this kernel's fstatat(2) takes such flags for an empty path.

        Of a descriptor: Linux 6.11 and later ignores those there that it does not know.
        """
        descriptor = eventfd.eventfd()
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

    def statx(self, file: int, flags: int, mask: int) -> int:
        """Fill ``statx_buffer``; return 0 or a negative error number.

        ``flags`` may hold AT_STATX_* of statx(2).
        """
        flags |= AT_EMPTY_PATH
        if _syscall(_NR_STATX, file, b"", flags, c_long(mask), self._statx_address) < 0:
            return -get_errno()
        return 0

    def birth_time(self, file: int) -> int:
        """Return a file's time of birth in nanoseconds, 0 where its file system keeps none."""
        buffer = self._birth_address
        if _syscall(_NR_STATX, file, b"", AT_EMPTY_PATH, c_long(_STATX_BTIME), buffer) < 0:
            return 0
        mask, seconds, nanoseconds = _BIRTH.unpack_from(self._birth_buffer)
        return seconds * 1_000_000_000 + nanoseconds if mask & _STATX_BTIME else 0

    def identity(self, file: int) -> tuple[int, int, int, int] | None:
        """Return st_mode, st_dev, st_ino and the time of birth of a file, None if it fails.

        The time is in nanoseconds, 0 where the file system keeps none. The permissions in
        st_mode may be missing.
        """
        buffer = self._birth_address
        if _syscall(_NR_STATX, file, b"", AT_EMPTY_PATH, _IDENTITY_MASK, buffer) < 0:
            return None
        mask, mode, inode, seconds, nanoseconds, major, minor = _IDENTITY.unpack_from(
            self._birth_buffer
        )
        birth = seconds * 1_000_000_000 + nanoseconds if mask & _STATX_BTIME else 0
        return mode, os.makedev(major, minor), inode, birth

    def mount(self, file: int) -> int:
        """Return the number of the mount that an open file is on. Raises OSError."""
        flags, buffer = AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, self._birth_address
        check(_syscall(_NR_STATX, file, b"", flags, _PLACE_MASK, buffer), "statx")
        return int(_PLACE.unpack_from(self._birth_buffer)[3])

    def getxattr(self, file: int, attribute: bytes) -> bytes | int:
        """Return the attribute's value, or a negative error number.

        A value over 256 bytes is ERANGE.
        """
        size: int = _getxattr(handle(file), attribute, self._value_address, _XATTR_LIMIT)
        if size < 0:
            return -get_errno()
        return bytes(self._value[:size])

    def setxattr(self, file: int, attribute: bytes, value: bytes) -> int:
        """Set an attribute; return 0 or a negative error number."""
        if _setxattr(handle(file), attribute, value, len(value), 0) < 0:
            return -get_errno()
        return 0

    def removexattr(self, file: int, attribute: bytes) -> int:
        """Remove an attribute; return 0 or a negative error number."""
        if _removexattr(handle(file), attribute) < 0:
            return -get_errno()
        return 0


def open_directory(path: bytes) -> int:
    """Return an O_PATH descriptor of a directory at an absolute path, -1 if there is none.

    No magic link of a procfs is followed on the way.
    """
    return max(Files().resolve(AT_FDCWD, path, os.O_DIRECTORY, RESOLVE_NO_MAGICLINKS), -1)


def place(path: bytes) -> tuple[int, int, int, int]:
    """Return by what a place is known among all of a mount namespace: its mount, and the file.

    Raises OSError.
    """
    buffer = bytearray(STATX_SIZE)
    where = c_void_p(address(buffer))
    check(_syscall(_NR_STATX, _AT_FDCWD, path, _AT_STATX_DONT_SYNC, _PLACE_MASK, where), "statx")
    inode, major, minor, mount = _PLACE.unpack_from(buffer)
    return mount, major, minor, inode


def access(file: int, want: int) -> int:
    """Return why this process may not use a file, as an error number, or 0 where it may.

    ``want`` is as to access(2), for the effective IDs and capabilities: faccessat2(2). ENOSYS
    before Linux 5.8.
    """
    flags = AT_EMPTY_PATH | _AT_EACCESS
    return 0 if _syscall(_NR_FACCESSAT2, file, b"", want, flags) == 0 else get_errno()


def is_procfs(file: int) -> bool:
    """Return whether a file is of a procfs: fstatfs(2). Raises OSError."""
    return _file_system(file) == _PROC_SUPER_MAGIC


def is_overlay(file: int) -> bool:
    """Return whether a file is of an overlayfs: fstatfs(2). Raises OSError."""
    return _file_system(file) == _OVERLAYFS_SUPER_MAGIC


def is_devpts(file: int) -> bool:
    """Return whether a file is of a devpts: fstatfs(2). Raises OSError."""
    return _file_system(file) == _DEVPTS_SUPER_MAGIC


def _file_system(file: int) -> int:
    buffer = bytearray(_STATFS_SIZE)
    check(_fstatfs(file, c_void_p(address(buffer))), "fstatfs")
    (kind,) = _STATFS_TYPE.unpack_from(buffer)
    return int(kind)
