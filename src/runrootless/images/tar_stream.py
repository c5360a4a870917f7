"""Reading a tar from a stream: tar(5), pax(1), and what GNU tar adds to them.

The module tarfile keeps all members in memory, takes what is damaged for the end, and
decodes names; so the format is read here, strictly, with names as bytes.
"""

from __future__ import annotations

import struct

from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Source(Protocol):
        """What a tar is read from."""

        def read(self, size: int, /) -> bytes:
            """Return that many bytes, fewer only at the end."""


REGULAR, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
"""What an entry may be."""

_BLOCK = 512
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s")
_EMPTY = bytes(_BLOCK)
_CHECKSUM = slice(148, 156)
_SPACES = 8 * 0x20
_NANOSECONDS = 1_000_000_000

_EXTENSION_LIMIT = 1 << 20
"""How large what extends a header may be, in bytes: as in Go's archive/tar."""

_SPARSE_LIMIT = 1 << 18
"""Of how many parts a sparse file may consist: as many as an extended header has room for."""

_SIZE_LIMIT = (1 << 63) - 1
"""How large a file may be, in bytes: off_t holds no more."""

_CHUNK = 1 << 20
_XATTRS = b"SCHILY.xattr."
_SPARSE = b"GNU.sparse."
_KEYS = (b"path", b"linkpath", b"uid", b"gid", b"size", b"mtime", b"atime")
_HEADER_ONLY = (LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO)
_KINDS = (REGULAR, *_HEADER_ONLY)
_AS_REGULAR = (b"\0", b"7", b"S")


class Entry:
    """One file: ``kind`` as in the header, ``name`` and ``link`` as they are written.

    ``mtime`` and ``atime`` are in nanoseconds since the epoch, ``size`` is how large the file
    is to be. ``xattrs`` are by name, and ``parts`` where what is read belongs in the file, as
    offsets and sizes: None for one that is not sparse.
    """

    __slots__ = (
        "atime",
        "gid",
        "kind",
        "link",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "parts",
        "size",
        "stored",
        "uid",
        "xattrs",
    )

    name: bytes
    link: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    stored: int
    mtime: int
    atime: int
    major: int
    minor: int
    xattrs: dict[bytes, bytes]
    parts: list[tuple[int, int]] | None


class Tar:
    """A tar that is read once, from its beginning to its end.

    ``what`` says in errors where it is from. Raises Error for what is no tar.
    """

    def __init__(self, source: Source, what: str) -> None:
        self._source = source
        self._what = what
        self._left = 0
        self._padding = 0
        # How much is kept of extended headers, in bytes.
        self._kept = 0

    def entries(self) -> Iterator[Entry]:
        """Yield the entries; the content of one is read before the next one is asked for."""
        defaults: dict[bytes, bytes] = {}
        extended: dict[bytes, bytes] = {}
        found = is_extended = False
        while True:
            self._skip()
            header = self._source.read(_BLOCK)
            if len(header) < _BLOCK or header == _EMPTY:
                if header and header != _EMPTY:
                    raise self._broken("it ends within a header")
                if not header and not found:
                    raise self._broken("it is empty")
                if is_extended:
                    raise self._broken("it ends after an extended header")
                return
            found = True
            fields = _HEADER.unpack(header)
            self._check(header, fields[6])
            kind = fields[7]
            size = self._number(fields[4])
            if kind in (b"x", b"g", b"L", b"K", b"X"):
                data = self._extension(size)
                is_extended = is_extended or kind != b"g"
                if kind == b"L":
                    self._keep(extended, {b"path": data.partition(b"\0")[0]})
                elif kind == b"K":
                    self._keep(extended, {b"linkpath": data.partition(b"\0")[0]})
                else:
                    self._keep(defaults if kind == b"g" else extended, self._records(data))
                continue
            is_extended = False
            entry = self._entry(fields, size, {**defaults, **extended} if defaults else extended)
            if extended:
                self._kept -= sum(len(key) + len(value) for key, value in extended.items())
                extended = {}
            yield entry

    def content(self) -> Iterator[bytes]:
        """Yield what is stored of the present entry, in parts of at most 1 MiB."""
        while self._left:
            data = self._read(min(self._left, _CHUNK))
            self._left -= len(data)
            yield data

    def _entry(self, fields: tuple[bytes, ...], size: int, extended: dict[bytes, bytes]) -> Entry:
        entry = Entry()
        entry.kind = kind = fields[7]
        if kind not in _KINDS:
            if kind not in _AS_REGULAR:
                raise self._broken(f"it has an entry of the type {ascii(kind)[2:-1]}")
            entry.kind = REGULAR
        name = fields[0].partition(b"\0")[0]
        # POSIX; GNU tar ("ustar  ") has other things there.
        if fields[9] == b"ustar\x0000" and fields[14][:1] != b"\0":
            name = fields[14].partition(b"\0")[0] + b"/" + name
        entry.name = name
        entry.link = fields[8].partition(b"\0")[0]
        entry.mode = self._number(fields[1]) & 0o7777
        entry.uid = self._number(fields[2])
        entry.gid = self._number(fields[3])
        entry.mtime = self._number(fields[5]) * _NANOSECONDS
        entry.atime = entry.mtime
        entry.major = entry.minor = 0
        if kind in (CHARACTER, BLOCK):
            entry.major, entry.minor = self._number(fields[12]), self._number(fields[13])
            if not 0 <= entry.major <= 0xFFFFFFFF or not 0 <= entry.minor <= 0xFFFFFFFF:
                raise self._broken(f"it has the device {entry.major}:{entry.minor}")
        entry.xattrs = {}
        entry.parts = None
        if extended:
            size = self._extend(entry, size, extended)
        if kind in (b"\0", REGULAR) and entry.name.endswith(b"/"):
            # Before POSIX there was no type for directories.
            entry.kind = DIRECTORY
        if entry.kind in _HEADER_ONLY:
            size = 0
        if not 0 <= size <= _SIZE_LIMIT:
            raise self._broken(f"it has an entry of {size} bytes")
        entry.size = entry.stored = size
        self._left = size
        self._padding = -size % _BLOCK
        if kind == b"S":
            self._old_sparse(entry, fields)
        elif extended and any(key.startswith(_SPARSE) for key in extended):
            self._pax_sparse(entry, extended)
        if not 0 <= entry.uid <= 0xFFFFFFFF or not 0 <= entry.gid <= 0xFFFFFFFF:
            raise self._broken(f"{_shown(entry.name)} belongs to {entry.uid}:{entry.gid}")
        if b"\0" in entry.name or b"\0" in entry.link:
            raise self._broken(f"{_shown(entry.name)} has a null byte in its name")
        return entry

    def _extend(self, entry: Entry, size: int, extended: dict[bytes, bytes]) -> int:
        """Take what an extended header says of an entry, and return its size."""
        for key, value in extended.items():
            if not value and not key.startswith(_XATTRS):
                # As if there were no such record: pax(1).
                continue
            if key == b"path":
                entry.name = value
            elif key == b"linkpath":
                entry.link = value
            elif key == b"uid":
                entry.uid = self._decimal(key, value)
            elif key == b"gid":
                entry.gid = self._decimal(key, value)
            elif key == b"size":
                size = self._decimal(key, value)
            elif key == b"mtime":
                seconds = self._time(key, value)
                if b"atime" not in extended:
                    entry.atime = seconds
                entry.mtime = seconds
            elif key == b"atime":
                entry.atime = self._time(key, value)
            elif key.startswith(_XATTRS):
                if b"\0" in key:
                    raise self._broken(f"{_shown(key)} has a null byte in its name")
                entry.xattrs[key[len(_XATTRS) :]] = value
        return size

    def _old_sparse(self, entry: Entry, fields: tuple[bytes, ...]) -> None:
        """Read where the parts of a file are from its header and those that follow: GNU tar."""
        # At 386 there are four descriptions, whether there are more, and the real size.
        tail = b"".join(fields[14:16])[386 - 345 :]
        descriptions, extended, size = tail[:96], tail[96:97], tail[97:109]
        parts: list[tuple[int, int]] = []
        while True:
            for at in range(0, len(descriptions) - 23, 24):
                offset, length = descriptions[at : at + 12], descriptions[at + 12 : at + 24]
                if not length.strip(b"\0 "):
                    break
                parts.append((self._number(offset), self._number(length)))
            if not extended.strip(b"\0"):
                break
            if len(parts) > _SPARSE_LIMIT:
                raise self._broken(f"{_shown(entry.name)} has too many parts")
            block = self._read(_BLOCK)
            descriptions, extended = block[:504], block[504:505]
        entry.size = self._number(size)
        self._take_parts(entry, parts)

    def _pax_sparse(self, entry: Entry, extended: dict[bytes, bytes]) -> None:
        """Take what is said of a sparse file in formats 0.0, 0.1 and 1.0 of GNU tar."""
        name = extended.get(b"GNU.sparse.name")
        if name:
            entry.name = name
        real = extended.get(b"GNU.sparse.realsize") or extended.get(b"GNU.sparse.size")
        if extended.get(b"GNU.sparse.major") == b"1":
            parts = self._read_map(entry)
        elif b"GNU.sparse.map" in extended:
            numbers = [
                self._decimal(b"map", one) for one in extended[b"GNU.sparse.map"].split(b",")
            ]
            if len(numbers) % 2:
                raise self._broken(f"{_shown(entry.name)} has an odd map")
            parts = list(zip(numbers[::2], numbers[1::2]))
        else:
            return
        if real is None:
            raise self._broken(f"{_shown(entry.name)} is sparse and of no size")
        entry.size = self._decimal(b"size", real)
        self._take_parts(entry, parts)

    def _read_map(self, entry: Entry) -> list[tuple[int, int]]:
        """Read the map that precedes the content: decimal numbers, a line for each."""
        # The first one is how many parts there are.
        numbers: list[int] = []
        rest = b""
        while not numbers or len(numbers) <= 2 * numbers[0]:
            # No number is as long as a block.
            if self._left < _BLOCK or len(rest) > _BLOCK:
                raise self._broken(f"{_shown(entry.name)} has half a map")
            *lines, rest = (rest + self._read(_BLOCK)).split(b"\n")
            self._left -= _BLOCK
            if lines and not numbers:
                numbers.append(self._decimal(b"map", lines.pop(0)))
                if not 0 <= numbers[0] <= _SPARSE_LIMIT:
                    raise self._broken(f"{_shown(entry.name)} has too many parts")
            if numbers:
                wanted = 2 * numbers[0] + 1 - len(numbers)
                numbers += [self._decimal(b"map", line) for line in lines[:wanted]]
        return list(zip(numbers[1::2], numbers[2::2]))

    def _take_parts(self, entry: Entry, parts: list[tuple[int, int]]) -> None:
        end = 0
        for offset, length in parts:
            if offset < end or length < 0:
                raise self._broken(f"{_shown(entry.name)} has parts that overlap")
            end = offset + length
        if not end <= entry.size <= _SIZE_LIMIT or sum(length for _, length in parts) != self._left:
            raise self._broken(f"{_shown(entry.name)} has parts of another size")
        entry.parts = parts

    def _records(self, data: bytes) -> dict[bytes, bytes]:
        """Return those records of an extended header that mean something here.

        Each is length, space, key, "=", value, newline.
        """
        records: dict[bytes, bytes] = {}
        offsets: list[bytes] = []
        at = 0
        while at < len(data):
            # Looked at to the end but once: what goes on after a null byte is damaged.
            if not data[at] and not data[at:].strip(b"\0"):
                break
            space = data.find(b" ", at, at + 20)
            length = self._decimal(b"length", data[at:space]) if space > at else 0
            record = data[space + 1 : at + length]
            key, equals, value = record.partition(b"=")
            if space < 0 or at + length > len(data) or not equals or record[-1:] != b"\n":
                raise self._broken("it has a damaged extended header")
            value = value[:-1]
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                # Format 0.0: one record each, in turns.
                offsets.append(value)
            elif key in _KEYS or key.startswith((_XATTRS, _SPARSE)):
                records[key] = value
            at += length
        if offsets:
            records[b"GNU.sparse.map"] = b",".join(offsets)
        return records

    def _keep(self, kept: dict[bytes, bytes], records: dict[bytes, bytes]) -> None:
        """Add records to those of other headers, as much as there may be of all."""
        for key, value in records.items():
            before = kept.get(key)
            self._kept += len(value) - len(before) if before is not None else len(key + value)
            kept[key] = value
        if self._kept > _EXTENSION_LIMIT:
            raise self._broken(f"its extended headers say more than {_EXTENSION_LIMIT} bytes")

    def _extension(self, size: int) -> bytes:
        if not 0 <= size <= _EXTENSION_LIMIT:
            raise self._broken(f"it has an extended header of {size} bytes")
        data = self._read(size)
        self._read(-size % _BLOCK)
        return data

    def _skip(self) -> None:
        left = self._left + self._padding
        skip = getattr(self._source, "skip", None)
        if left and skip is not None and skip(left) < left:
            raise self._broken("it ends too early")
        while left and skip is None:
            left -= len(self._read(min(left, _CHUNK)))
        self._left = self._padding = 0

    def _read(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            raise self._broken("it ends too early")
        return data

    def _check(self, header: bytes, field: bytes) -> None:
        # Of unsigned bytes, with spaces in the place of the checksum itself.
        total = sum(header) - sum(header[_CHECKSUM]) + _SPACES
        expected = self._number(field)
        if total == expected:
            return
        # Some old programs have added signed bytes.
        signed = total - 256 * sum(byte > 127 for byte in header)
        signed += 256 * sum(byte > 127 for byte in field)
        if signed != expected:
            raise self._broken("a header has the wrong checksum")

    def _number(self, field: bytes) -> int:
        """Return the number in a header: octal digits, or GNU's base 256."""
        if field[0] & 0x80:
            value = int.from_bytes(field, "big") & ~(1 << (8 * len(field) - 1))
            # Negative: two's complement, of which the first bit is 1 as the mark is.
            return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
        digits = field.partition(b"\0")[0].strip()
        if not digits:
            return 0
        try:
            return int(digits, 8)
        except ValueError:
            raise self._broken(
                f"a header has {ascii(field)[2:-1]} in the place of a number"
            ) from None

    def _decimal(self, key: bytes, value: bytes) -> int:
        if len(value) < 20 and value.removeprefix(b"-").isdigit():
            return int(value)
        raise self._broken(f"{_shown(key)} is {_shown(value)}, no number")

    def _time(self, key: bytes, value: bytes) -> int:
        seconds, _, fraction = value.partition(b".")
        if fraction and not fraction.isdigit():
            raise self._broken(f"{_shown(key)} is {_shown(value)}, no number")
        whole = self._decimal(key, seconds) * _NANOSECONDS
        part = int((fraction[:9] + b"000000000")[:9])
        return whole - part if seconds.startswith(b"-") else whole + part

    def _broken(self, what: str) -> Error:
        return Error(f"{self._what} is no proper tar: {what}: get it again")


def _shown(name: bytes) -> str:
    return name[:200].decode("utf-8", "backslashreplace")
