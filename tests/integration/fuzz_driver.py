"""Runs system calls that it reads, with any arguments, and writes what they returned.

One line of JSON is a list of calls; the answer is a line of JSON. Each list is carried
out by a process of its own in a fresh directory with the same few files. Standard
library only: it runs inside the root file systems of the tests.
"""

import ctypes
import errno
import functools
import json
import mmap
import os
import socket
import stat
import sys
from typing import Any

from driver_calls import LIBC, error_name, in_child, library_call, registers, system_call

LIBC.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


BY_LIBRARY = "library" in sys.argv
"""Whether the C library's functions are called, not the kernel."""

PAGE = mmap.PAGESIZE
BUFFER_SIZE = 512
FILES = ("f", "suid", "d", "l", "dangling", "loop", "p", "s", "n", "sg", "new", "d/new", "sg/new")
OWNED = (
    ("r", 0, 0, 0o600), ("o", 7, 8, 0o640), ("g", 0, 8, 0o664), ("x", 0, 0, 0o711),
    ("closed", 0, 0, 0o40700), ("closed/f", 7, 8, 0o666), ("into", 7, 8, 0o40733),
    ("into/f", 0, 0, 0o644), ("sticky", 0, 0, 0o41777), ("sticky/o", 7, 8, 0o600),
    ("sticky/r", 0, 0, 0o666), ("sticky/d", 0, 8, 0o40770),
)  # fmt: skip
"""Files whose permissions matter: name, owner, group and mode."""


class Arena:
    """Memory to point to: readable, writable, at the end of what is mapped."""

    def __init__(self) -> None:
        self.maps = [mmap.mmap(-1, 3 * PAGE) for _ in range(2)]
        self.base = [ctypes.addressof(ctypes.c_char.from_buffer(m)) for m in self.maps]
        # The last page of the first map is not there, that of the second is read-only.
        LIBC.mprotect(self.base[0] + 2 * PAGE, PAGE, 0)
        LIBC.mprotect(self.base[1] + 2 * PAGE, PAGE, 1)
        self.keep: list[Any] = []

    def text(self, text: bytes) -> int:
        self.keep.append(ctypes.create_string_buffer(text))
        return ctypes.addressof(self.keep[-1])

    def pointer(self, kind: str) -> int:
        end = self.base[0] + 2 * PAGE
        if kind == "unterminated":
            ctypes.memset(end - 16, ord("f"), 16)
            return end - 16
        if kind == "at the end":
            ctypes.memmove(end - 2, b"f\0", 2)
            return end - 2
        if kind == "across pages":
            middle = self.base[0] + PAGE
            ctypes.memmove(middle - 3, b"d/../f\0", 7)
            return middle - 3
        return {
            "null": 0,
            "one": 1,
            "high": 2**64 - 1,
            "kernel": 0xFFFF800000000000,
            "absent": end,
            "short": end - 8,
            "read-only": self.base[1] + 2 * PAGE,
        }[kind]


def prepare() -> socket.socket:
    """Make the files that the calls are about."""
    os.umask(0)
    os.chmod(".", 0o777)
    for name, mode in (("f", 0o666), ("suid", 0o6755)):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o777))
        os.chmod(name, mode)
    os.mkdir("d", 0o777)
    os.mkdir("sg", 0o777)
    os.chown("sg", 7, 8)
    os.chmod("sg", 0o2777)
    os.symlink("f", "l")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    os.mkfifo("p")
    # Of no driver: the kernel would make a loop device for who opens it.
    os.mknod("n", stat.S_IFBLK | 0o600, os.makedev(60, 300))
    for name, uid, gid, mode in OWNED:
        if stat.S_ISDIR(mode):
            os.mkdir(name)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        os.chown(name, uid, gid)
        os.chmod(name, stat.S_IMODE(mode))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("s")
    return listener


def descriptors(listener: socket.socket) -> dict[str, int]:
    """Return the descriptors that the calls may name."""
    closed = os.open("f", os.O_RDONLY)
    os.close(closed)
    return {
        "cwd": -100,
        "closed": closed,
        "file": os.open("f", os.O_RDWR),
        "directory": os.open("d", os.O_RDONLY),
        "place": os.open("f", os.O_PATH),
        "symlink": os.open("l", os.O_PATH | os.O_NOFOLLOW),
        "pipe": os.pipe()[0],
        "socket": listener.fileno(),
        "minus one": -1,
        "huge": 2**31 - 1,
    }


def value_of(argument: Any, arena: Arena, there: dict[str, int]) -> tuple[int, Any]:
    """Return what to pass for an argument as it was written: a number or a pair."""
    if isinstance(argument, int):
        return argument, None
    kind, what = argument
    if kind == "path":
        return arena.text(what.encode()), None
    if kind == "pointer":
        return arena.pointer(what), None
    if kind == "descriptor":
        return there[what], None
    if kind == "value":
        return arena.text(bytes.fromhex(what)), None
    if kind == "ids":
        array: Any = (ctypes.c_uint * max(1, len(what)))(*what)
    else:
        array = (ctypes.c_ubyte * BUFFER_SIZE)()
    arena.keep.append(array)
    return ctypes.addressof(array), array if kind == "buffer" else None


def shown(name: str, result: int, buffers: list[Any]) -> Any:
    """Return what a successful call has written, as far as it is the same everywhere."""
    data = bytes(buffers[-1]) if buffers else b""
    if name in ("stat", "lstat", "fstat", "newfstatat") and data:
        word = int.from_bytes
        return [word(data[at : at + 4], "little") for at in (24, 28, 32, 40)]
    if name == "statx" and data:
        return [data[20:30].hex(), data[128:136].hex()]
    if name.startswith("getres"):
        return [bytes(buffer[:4]).hex() for buffer in buffers]
    if name == "getgroups" and data:
        return data[: 4 * max(0, result)].hex()
    if "getxattr" in name or "listxattr" in name or name.startswith("readlink"):
        return data[: max(0, result)].hex() if data else None
    return None


def call(name: str, arguments: list[Any], arena: Arena, there: dict[str, int]) -> Any:
    """Make one call; return its result or the name of its error, and what it has written.

    "become" is the name of all calls together that make the process a user's.
    """
    if name == "become":
        uid, gid, groups = arguments
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        return None
    found = [value_of(argument, arena, there) for argument in arguments]
    buffers = [buffer for _, buffer in found if buffer is not None]
    make = library_call if BY_LIBRARY else system_call
    result, number = make(name, registers([value for value, _ in found]))
    if result == -1 and number:
        return error_name(number)
    if name in ("open", "openat"):
        os.close(result)
        return "opened"
    return [result, shown(name, result, buffers)]


def attributes(name: str) -> Any:
    """Return the extended attributes of a file."""
    try:
        attributes = sorted(os.listxattr(name, follow_symlinks=False))
        return [[one, os.getxattr(name, one, follow_symlinks=False).hex()] for one in attributes]
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def state(names: list[str]) -> list[Any]:
    """Return what is there after all."""
    found: list[Any] = []
    for name in names:
        try:
            s = os.lstat(name)
        except OSError as error:
            found.append([name, errno.errorcode[error.errno or 0]])
        else:
            found.append([name, oct(s.st_mode), s.st_uid, s.st_gid, s.st_rdev, attributes(name)])
    return found


def carry_out(calls: list[Any]) -> Any:
    """Carry out a list of calls in this process; return all that came of it."""
    listener = prepare()
    arena, there = Arena(), descriptors(listener)
    names = list(FILES)
    if calls[0][0] == "become":
        names += [owned[0] for owned in OWNED]
    results = [call(name, arguments, arena, there) for name, arguments in calls]
    return [results, os.getresuid(), os.getresgid(), os.getgroups(), state(names)]


def answer_in(directory: str, line: str) -> str:
    """Carry out a line of calls in a directory; return the line that is the answer."""
    os.chdir(directory)
    return json.dumps(carry_out(json.loads(line)))


def main() -> None:
    """Answer line by line until the input ends."""
    for number, line in enumerate(sys.stdin):
        directory = f"/srv/fuzz-{number}"
        os.mkdir(directory)
        answer, status = in_child(functools.partial(answer_in, directory, line))
        print(answer or json.dumps(f"status {status}"), flush=True)


if __name__ == "__main__":
    main()
