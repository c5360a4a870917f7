"""The extended attributes of files that cannot carry them.

A line of text for each change: what it says, with its checksum, in base64 between two
newlines. So one that was cut short ends where the next one begins, and no value can be
taken for a line.
"""

from __future__ import annotations

import binascii
import errno
import struct

from runrootless.emulation.call import failure
from runrootless.emulation.stores.journal import Contents
from runrootless.emulation.stores.side_store import (
    CHECK_SIZE,
    NO_DEVICE,
    SideStore,
    with_checksum,
    without_checksum,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LIMIT = 16 << 20
"""How large what is kept may be, as lines in bytes. Files that are gone count as well."""

NAMES_LIMIT = 65536
"""How large the list of the names of one file's attributes may be: what listxattr(2) returns."""

FILES_LIMIT = 1 << 16
"""Of how many files attributes are kept. Those that are gone count as well."""

_HEAD = struct.Struct("=QQq?B")
# With a value of 64 KiB (XATTR_SIZE_MAX) and a name of 255 bytes, in base64, and some.
_LINE_LIMIT = 1 << 17


class _Files(Contents):
    """Attributes by device and inode."""

    def __init__(self) -> None:
        self.size = 0
        self._files: dict[tuple[int, int], tuple[int, dict[bytes, bytes]]] = {}
        self.header_size = len(self.header(0))

    def __len__(self) -> int:
        return len(self._files)

    def find(self, device: int, inode: int) -> tuple[int, dict[bytes, bytes]] | None:
        return self._files.get((device, inode))

    def header(self, generation: int, inode: int = 0) -> bytes:
        return _pack(NO_DEVICE, generation, inode, b"", None)

    def padding(self, end: int) -> bytes:
        return b""

    def take(self, data: bytes, offset: int) -> int:
        end = data.rfind(b"\n") + 1
        for text in data[:end].split(b"\n"):
            if text:
                change = _unpack(text)
                if change and change[0] != NO_DEVICE:
                    self._change(*change)
        # What is too long is no line that is just being written.
        return len(data) if len(data) - end > _LINE_LIMIT else end

    def lines(self) -> Iterator[bytes]:
        for (device, inode), (birth, there) in self._files.items():
            for name, value in there.items():
                yield _pack(device, inode, birth, name, value)

    def clear(self) -> None:
        self._files.clear()
        self.size = 0

    def _change(
        self, device: int, inode: int, birth: int, name: bytes, value: bytes | None
    ) -> None:
        key = device, inode
        known, there = self._files.get(key, (birth, {}))
        if known != birth:
            if value is None:
                return
            # The number is another file's by now.
            self.size -= sum(_line_size(*attribute) for attribute in there.items())
            there = {}
        if name in there:
            self.size -= _line_size(name, there.pop(name))
        if value is not None:
            self.size += _line_size(name, value)
            there[name] = value
        if there:
            self._files[key] = birth, there
        else:
            self._files.pop(key, None)


class AttributeStore(SideStore):
    """Attributes by device and inode."""

    file_limit = 4 * LIMIT

    def __init__(self) -> None:
        super().__init__("attributes")

    def find(self, device: int, inode: int) -> tuple[int, Mapping[bytes, bytes]] | None:
        """Return the time of birth (nanoseconds) and the attributes kept of a file, or None."""
        key_device, journal = self._place(device)
        if journal.is_empty():
            return None
        with self._lock:
            journal.look()
            found = _files(journal.contents).find(key_device, inode)
            # Another thread may change what is there.
            return found and (found[0], dict(found[1]))

    def keep(self, device: int, inode: int, birth: int, name: bytes, value: bytes) -> None:
        """Keep an attribute. Raises OSError: ENOSPC, EDQUOT, EROFS."""
        key_device, journal = self._place(device)
        with self._lock:
            journal.look()
            files = _files(journal.contents)
            found = files.find(key_device, inode)
            there = found[1] if found and found[0] == birth else {}
            if there.get(name) == value:
                return
            added = _line_size(name, value)
            if name in there:
                added -= _line_size(name, there[name])
            names_size = sum(len(other) + 1 for other in there if other != name) + len(name) + 1
            if (
                files.size + added > LIMIT
                or names_size > NAMES_LIMIT
                or (found is None and len(files) >= FILES_LIMIT)
            ):
                raise failure(errno.ENOSPC)
            journal.add(_pack(key_device, inode, birth, name, value))

    def remove(self, device: int, inode: int, birth: int, name: bytes) -> None:
        """Keep an attribute, which is there, no more. Raises OSError: ENOSPC, EDQUOT, EROFS."""
        key_device, journal = self._place(device)
        with self._lock:
            journal.look()
            journal.add(_pack(key_device, inode, birth, name, None), is_removal=True)

    def _contents(self) -> Contents:
        return _Files()


def is_beginning(data: bytes) -> bool:
    """Return whether there is a line in what a file begins with."""
    return any(_unpack(text) for text in data.split(b"\n"))


def _files(contents: Contents) -> _Files:
    assert isinstance(contents, _Files)
    return contents


def _pack(device: int, inode: int, birth: int, name: bytes, value: bytes | None) -> bytes:
    head = _HEAD.pack(device, inode, birth, value is not None, len(name))
    line = with_checksum(head + name + (value or b""))
    return b"\n" + binascii.b2a_base64(line)


def _unpack(text: bytes) -> tuple[int, int, int, bytes, bytes | None] | None:
    """Return what a line says, as ``_pack`` takes it, or None if it was cut short."""
    try:
        line = without_checksum(binascii.a2b_base64(text))
    except binascii.Error:
        return None
    if line is None or len(line) < _HEAD.size:
        return None
    device, inode, birth, is_there, size = _HEAD.unpack_from(line)
    value = _HEAD.size + size
    return device, inode, birth, line[_HEAD.size : value], line[value:] if is_there else None


def _line_size(name: bytes, value: bytes) -> int:
    """Return the size of the line that says that an attribute has a value, in bytes."""
    return 2 + (_HEAD.size + len(name) + len(value) + CHECK_SIZE + 2) // 3 * 4
