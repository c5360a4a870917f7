"""Executable files: elf(5)."""

from __future__ import annotations

import os
import struct

_HEADER = struct.Struct("<4s5B7xHHIQQQIHHHHHH")
_MAGIC = b"\x7fELF"
_CLASS_64 = 2
_MACHINES = {"x86_64": 62, "aarch64": 183}
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SEGMENTS_LIMIT = 256
_LOADED, _DYNAMIC = 1, 2
_ENTRY = struct.Struct("<qQ")
_END, _NEEDED, _STRINGS = 0, 1, 5
_DYNAMIC_LIMIT = 1 << 16
_NAME_LIMIT = 256
_LAST_OFFSET = (1 << 63) - 1


def needed(file: int, machine: str) -> list[bytes]:
    """Return the names of the libraries that a 64-bit program needs, from an open file.

    Raises ValueError where it is no program for the machine (as uname(2) calls it), or its
    tables are not as they should be, and OSError as read(2).
    """
    header = _read(file, 0, _HEADER.size)
    magic, kind, *_, number, _, _, offset, _, _, _, size, count, _, _, _ = _HEADER.unpack(header)
    if (magic, kind, number) != (_MAGIC, _CLASS_64, _MACHINES[machine]):
        raise ValueError("a file of another kind")
    if size != _SEGMENT.size or count > _SEGMENTS_LIMIT:
        raise ValueError(f"{count} segments of {size} bytes")
    segments = list(_SEGMENT.iter_unpack(_read(file, offset, size * count)))
    dynamic = [segment for segment in segments if segment[0] == _DYNAMIC]
    if not dynamic:
        return []
    _, _, offset, _, _, size, _, _ = dynamic[0]
    if size > _DYNAMIC_LIMIT:
        raise ValueError(f"a dynamic section of {size} bytes")
    names: list[int] = []
    strings = 0
    data = _read(file, offset, size - size % _ENTRY.size)
    for tag, value in _ENTRY.iter_unpack(data):
        if tag == _END:
            break
        if tag == _NEEDED:
            names.append(value)
        elif tag == _STRINGS:
            strings = value
    start = _place(segments, strings) if names else 0
    return [_pread(file, _NAME_LIMIT, start + name).partition(b"\0")[0] for name in names]


def _place(segments: list[tuple[int, ...]], address: int) -> int:
    """Return where in the file is what is loaded at an address. Raises ValueError."""
    for kind, _, offset, start, _, size, _, _ in segments:
        if kind == _LOADED and start <= address < start + size:
            return offset + address - start
    raise ValueError(f"nothing at {address:#x}")


def _read(file: int, offset: int, size: int) -> bytes:
    data = _pread(file, size, offset)
    if len(data) != size:
        raise ValueError("a file that is cut short")
    return data


def _pread(file: int, size: int, offset: int) -> bytes:
    """Return what is there, nothing beyond where any file could end."""
    return os.pread(file, size, offset) if offset <= _LAST_OFFSET else b""
