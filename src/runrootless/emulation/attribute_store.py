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
from runrootless.emulation.side_store import (
    CHECK_SIZE,
    SideStore,
    with_checksum,
    without_checksum,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 16 << 20
"""How large what is kept may be, as lines in bytes. Files that are gone count as well."""

NAMES_LIMIT = 65536
"""How large the list of the names of one file's attributes may be: what listxattr(2) returns."""

FILE_LIMIT = 2 * LIMIT
"""How large the file may become by what is set, in bytes."""

_HEAD = struct.Struct("=QQq?B")


class AttributeStore(SideStore):
    """Attributes by device and inode.

    The file grows to twice ``LIMIT`` before it is compacted, and to four times at most: the
    line of a removal, which has to be possible always, is no longer than what it removes.
    """

    # Not less: to that end it is read, which is else left until there is a question.
    compaction_size = LIMIT

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[tuple[int, int], tuple[int, dict[bytes, bytes]]] = {}
        self._size = 0

    def find(self, device: int, inode: int) -> tuple[int, Mapping[bytes, bytes]] | None:
        """Return the time of birth (nanoseconds) and the attributes kept of a file, or None."""
        self._look()
        if not self._files:
            return None
        return self._files.get((self._key_device(device), inode))

    def keep(self, device: int, inode: int, birth: int, name: bytes, value: bytes) -> None:
        """Keep an attribute. Raises OSError: ENOSPC, EDQUOT, EROFS."""
        found = self.find(device, inode)
        there = found[1] if found and found[0] == birth else {}
        if there.get(name) == value:
            return
        added = _line_size(name, value) - (_line_size(name, there[name]) if name in there else 0)
        names_size = sum(len(other) + 1 for other in there if other != name) + len(name) + 1
        if self._size + added > LIMIT or names_size > NAMES_LIMIT:
            raise failure(errno.ENOSPC)
        self._add(device, inode, birth, name, value, FILE_LIMIT)

    def remove(self, device: int, inode: int, birth: int, name: bytes) -> None:
        """Keep an attribute, which is there, no more. Raises OSError: ENOSPC, EDQUOT, EROFS."""
        self._add(device, inode, birth, name, None, 0)

    def _add(
        self, device: int, inode: int, birth: int, name: bytes, value: bytes | None, limit: int
    ) -> None:
        key_device = self._key_device(device)
        if not self._append(key_device, _pack(key_device, inode, birth, name, value), limit):
            self._change(key_device, inode, birth, name, value)

    def _change(
        self, key_device: int, inode: int, birth: int, name: bytes, value: bytes | None
    ) -> None:
        key = key_device, inode
        known, there = self._files.get(key, (birth, {}))
        if known != birth:
            if value is None:
                return
            # The number is another file's by now.
            self._size -= sum(_line_size(*attribute) for attribute in there.items())
            there = {}
        if name in there:
            self._size -= _line_size(name, there.pop(name))
        if value is not None:
            self._size += _line_size(name, value)
            there[name] = value
        if there:
            self._files[key] = birth, there
        else:
            self._files.pop(key, None)

    def _take(self, data: bytes) -> int:
        end = data.rfind(b"\n") + 1
        for text in data[:end].split(b"\n"):
            if text:
                change = _unpack(text)
                if change:
                    self._change(*change)
        return end

    def _lines(self) -> list[bytes]:
        return [
            _pack(device, inode, birth, name, value)
            for (device, inode), (birth, there) in self._files.items()
            if not self._stays_in_memory(device)
            for name, value in there.items()
        ]

    def _lines_size(self) -> int:
        return self._size

    def _forget(self) -> None:
        self._files = {
            key: kept for key, kept in self._files.items() if self._stays_in_memory(key[0])
        }
        self._size = sum(
            _line_size(*attribute)
            for _, there in self._files.values()
            for attribute in there.items()
        )


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
