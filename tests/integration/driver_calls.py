"""What the drivers have in common: system calls by name, in processes of their own.

Standard library only: it runs inside the root file systems of the tests.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long

NUMBERS = {
    "stat": 4, "fstat": 5, "lstat": 6, "newfstatat": 262, "statx": 332, "chown": 92, "fchown": 93,
    "lchown": 94, "fchownat": 260, "mknod": 133, "mknodat": 259, "open": 2, "openat": 257,
    "mkdir": 83, "mkdirat": 258, "symlink": 88, "symlinkat": 266, "getuid": 102, "geteuid": 107,
    "getgid": 104, "getegid": 108, "getresuid": 118, "getresgid": 120, "getgroups": 115,
    "setuid": 105, "setgid": 106, "setreuid": 113, "setregid": 114, "setresuid": 117,
    "setresgid": 119, "setfsuid": 122, "setfsgid": 123, "setgroups": 116, "getxattr": 191,
    "lgetxattr": 192, "fgetxattr": 193, "listxattr": 194, "llistxattr": 195, "flistxattr": 196,
    "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198,
    "fremovexattr": 199, "statfs": 137, "getsockopt": 55, "capget": 125, "access": 21,
    "faccessat": 269, "faccessat2": 439, "readlink": 89, "readlinkat": 267, "chdir": 80,
    "fchdir": 81, "truncate": 76, "unlink": 87, "rmdir": 84, "unlinkat": 263, "rename": 82,
    "renameat": 264, "renameat2": 316, "link": 86, "linkat": 265, "chmod": 90, "fchmod": 91,
    "fchmodat": 268, "utime": 132, "utimensat": 280, "openat2": 437, "creat": 85, "bind": 49,
    "execve": 59, "execveat": 322, "setxattrat": 463, "getxattrat": 464, "listxattrat": 465,
    "removexattrat": 466, "mount": 165, "umount2": 166, "chroot": 161, "pivot_root": 155,
    "inotify_add_watch": 254, "fchmodat2": 452, "utimes": 235, "futimesat": 261,
}  # fmt: skip
"""Of x86_64."""


FUNCTIONS = {
    name: getattr(LIBC, {"newfstatat": "fstatat"}.get(name, name))
    for name in (
        *("stat", "lstat", "fstat", "newfstatat", "statx"),
        *("getuid", "geteuid", "getgid", "getegid"),
        *("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr"),
        *("chown", "lchown", "fchown", "fchownat", "open", "openat", "creat", "fsetxattr"),
        *("mkdir", "mkdirat", "symlink", "symlinkat", "chmod", "fchmod", "utimensat"),
    )
}
"""The C library's functions that make these calls, and that may be replaced."""


LOOKS = 5
"""How often a path is looked up that seems to have too many links."""


def library_call(name: str, values: list[ctypes.c_ulong]) -> tuple[int, int]:
    """Do as ``system_call`` by the C library's function, if it is one of those."""
    function = FUNCTIONS.get(name)
    if function is None:
        return system_call(name, values)
    return outcome(function, *values)


def system_call(name: str, values: list[ctypes.c_ulong]) -> tuple[int, int]:
    """Make a call; return its result and errno, which is 0 where the call has not set it."""
    return outcome(LIBC.syscall, NUMBERS[name], *values)


def outcome(function: Any, *values: Any) -> tuple[int, int]:
    """Call a function; return its result and errno.

    ELOOP is asked for again: the kernel goes on counting links where it begins a path anew, as
    it does when something is mounted meanwhile, anywhere on the machine (fs/namei.c).
    """
    for _ in range(LOOKS):
        ctypes.set_errno(0)
        result, number = function(*values), ctypes.get_errno()
        if result != -1 or number != errno.ELOOP:
            break
    return result, number


def error_name(number: int) -> Any:
    """Return the name of an error, or its number where it has none."""
    return errno.errorcode.get(number, number)


def registers(numbers: list[int]) -> list[ctypes.c_ulong]:
    """Return arguments as they are passed: 64 bits of each."""
    return [ctypes.c_ulong(number & (2**64 - 1)) for number in numbers]


def in_child(function: Callable[[], str]) -> tuple[str, int]:
    """Return what a function returns in a child, and the child's wait status."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, function().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    return text, os.waitpid(pid, 0)[1]
