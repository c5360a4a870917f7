"""Recognizing the memory of a process, which execve(2) replaces: proc(5)."""

from __future__ import annotations

import os
import struct

from runrootless.linux import syscall_numbers
from runrootless.linux.libc import address, c_long, c_void_p, quick_function

_syscall = quick_function("syscall")
_NR_STATX = syscall_numbers.NUMBERS[os.uname().machine]["statx"]
_AT_FDCWD = -100 & 0xFFFFFFFF
# What a file system knows by itself: one that hangs must not be asked.
_AT_STATX_DONT_SYNC = 0x4000
_STATX_INO = c_long(0x100)
_STATX_SIZE = 256
# stx_ino, stx_dev_major and stx_dev_minor.
_NUMBERS = struct.Struct("=32xQ96xII")
_STAT_SIZE = 4096
_NONE = b"0"


def layout(directory: bytes) -> bytes | None:
    """Return where code, stack, data, heap, arguments and environment begin and end.

    Fields 26 to 28 and 45 to 51 of the file ``stat`` in a thread's directory in /proc. All of
    them change by execve(2) and by prctl(2) with PR_SET_MM, and by nothing else. None where
    the thread has no memory any more. Raises OSError where it is gone.
    """
    fd = os.open(directory + b"/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fields = os.read(fd, _STAT_SIZE).rpartition(b")")[2].split()
    finally:
        os.close(fd)
    found = fields[23:26] + fields[42:49]
    return None if found[0] == _NONE else b" ".join(found)


def executable(directory: bytes) -> tuple[int, int]:
    """Return the device and inode of the file that a thread executes; (0, 0) if unknown.

    As stat(2) numbers them. It is the interpreter's in the case of a script.
    """
    buffer = bytearray(_STATX_SIZE)
    where = c_void_p(address(buffer))
    name = directory + b"/exe"
    if _syscall(_NR_STATX, _AT_FDCWD, name, _AT_STATX_DONT_SYNC, _STATX_INO, where) < 0:
        return 0, 0
    inode, major, minor = _NUMBERS.unpack_from(buffer)
    return os.makedev(major, minor), inode
