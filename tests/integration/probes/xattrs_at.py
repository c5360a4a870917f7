"""Prints what setxattrat(2) and its relatives do to files of the current directory."""

import ctypes
import os
import struct

SET, GET, LIST, REMOVE = range(463, 467)
HERE, NOFOLLOW, EMPTY = -100, 0x100, 0x1000
OWNERS = b"user.rootlesscontainers"

libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: bytes | int | ctypes.Array[ctypes.c_char] | None) -> None:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = libc.syscall(number, *words)
    print(result if result >= 0 else os.strerror(ctypes.get_errno()))


def call_with_values(
    number: int,
    where: tuple[int, bytes | None, int],
    name: bytes,
    value: bytes,
    flags: int = 0,
    size: int = 16,
    rest: bytes = b"\0" * 9,
) -> None:
    buffer = ctypes.create_string_buffer(value, 70)
    words = struct.pack("=QII", ctypes.addressof(buffer), len(value), flags) + rest
    call(number, *where, name, words, size)
    if number == GET:
        print(buffer.raw[: len(value)])


def show(where: tuple[int, bytes | None, int]) -> None:
    buffer = ctypes.create_string_buffer(200)
    call(LIST, *where, buffer, 200)
    print(sorted(buffer.raw.strip(b"\0").split(b"\0")))


os.mkdir("d")
os.close(os.open("d/f", os.O_CREAT | os.O_WRONLY))
os.symlink("f", "d/l")
os.mkfifo("d/p")
for file in "flp":
    os.chown(f"d/{file}", 5, 6, follow_symlinks=False)
directory = os.open("d", os.O_RDONLY)
descriptor = os.open("d/f", os.O_RDONLY)
place = os.open("d/f", os.O_PATH)
for where in (
    (directory, b"f", 0),
    (directory, b"l", 0),
    (directory, b"l", NOFOLLOW),
    (directory, b"p", 0),
    (HERE, b"d/f", 0),
    (descriptor, b"", EMPTY),
    (descriptor, None, EMPTY),
    (place, b"", EMPTY),
    (HERE, b"", EMPTY),
    (HERE, None, EMPTY),
    (directory, b"", 0),
    (directory, b"none", 0),
    (99, b"f", 0),
    (99, b"", EMPTY),
    (directory, b"f", 1),
    (directory, None, 0),
    (descriptor, b"f", 0),
):
    print(*where[1:])
    for name in (b"trusted.a", b"security.b", b"user.c", OWNERS):
        call_with_values(GET, where, name, b"." * 8)
        if name != OWNERS:
            call_with_values(SET, where, name, b"value", os.XATTR_CREATE)
        for length in (8, 2, 0):
            call_with_values(GET, where, name, b"." * length)
    show(where)
    for name in (b"trusted.a", b"security.b", b"user.c"):
        call(REMOVE, *where, name)
    show(where)

where = (directory, b"f", 0)
for size in (0, 15, 17, 25, 5000):
    call_with_values(SET, where, b"trusted.a", b"1", size=size)
call_with_values(SET, where, b"trusted.a", b"1", size=20, rest=b"\0\0\0\1")
call_with_values(GET, where, b"trusted.a", b"1", flags=1)
call_with_values(SET, where, b"trusted.a", b"1", flags=8)
call(SET, *where, b"trusted.a", 1, 16)
os.setresuid(7, 7, 7)
call_with_values(SET, where, b"trusted.a", b"1")
call_with_values(GET, where, b"trusted.a", b"..")
call(REMOVE, *where, b"trusted.a")
show(where)
