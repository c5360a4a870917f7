"""The side store of owners, and of the devices that device nodes stand for.

A line of 48 bytes for each change, each at a multiple of that. A line that something else has
cut short shifts those that follow, so lines are also looked for in between.
"""

from __future__ import annotations

import errno
import struct

from runrootless.emulation.call import failure
from runrootless.emulation.stores.journal import Contents
from runrootless.emulation.stores.record import NOTHING, Record
from runrootless.emulation.stores.side_store import (
    CHECK_SIZE,
    NO_DEVICE,
    SideStore,
    with_checksum,
    without_checksum,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 1 << 19
"""How many records are kept. Files that are gone count as well."""

_KEY = struct.Struct("=QQ")
_VALUE = struct.Struct("=qIIIQ")
LINE_SIZE = _KEY.size + _VALUE.size + CHECK_SIZE
"""Size of one line in bytes."""

_NOTHING = bytes(_VALUE.size - 8)
# How many places in all a line may be looked for that is not where it should be.
_SEARCHES = 1 << 16


class _Records(Contents):
    """Records by device and inode, as they are in a line: less than half as large."""

    header_size = LINE_SIZE

    def __init__(self) -> None:
        self.count = 0
        self._devices: dict[int, dict[int, bytes]] = {}
        self._searches = _SEARCHES

    @property
    def size(self) -> int:  # type: ignore[override]
        return LINE_SIZE * self.count

    def find(self, device: int, inode: int) -> tuple[int, Record] | None:
        value = self._devices.get(device, {}).get(inode)
        if value is None:
            return None
        birth, *values = _VALUE.unpack(value)
        return birth, Record(*values)

    def header(self, generation: int, inode: int = 0) -> bytes:
        return _pack(NO_DEVICE, generation, inode, NOTHING)

    def padding(self, end: int) -> bytes:
        return bytes(-end % LINE_SIZE)

    def take(self, data: bytes, offset: int) -> int:
        position = 0
        while position + LINE_SIZE <= len(data):
            line = without_checksum(data[position : position + LINE_SIZE])
            if line is None:
                if position and len(data) - position < 2 * LINE_SIZE:
                    # Once more with what follows, if anything does.
                    break
                position = self._next(data, position, offset)
                continue
            device, inode = _KEY.unpack_from(line)
            if device != NO_DEVICE:
                self._set(device, inode, line[_KEY.size :])
            position += LINE_SIZE
        return min(position, len(data))

    def lines(self) -> Iterator[bytes]:
        for device, inodes in self._devices.items():
            for inode, value in inodes.items():
                yield with_checksum(_KEY.pack(device, inode) + value)

    def clear(self) -> None:
        self._devices.clear()
        self.count = 0

    def _set(self, device: int, inode: int, value: bytes) -> None:
        inodes = self._devices.setdefault(device, {})
        before = len(inodes)
        if value.endswith(_NOTHING):
            inodes.pop(inode, None)
        else:
            inodes[inode] = value
        self.count += len(inodes) - before
        if not inodes:
            del self._devices[device]

    def _next(self, data: bytes, position: int, offset: int) -> int:
        """Return where to go on after what is no line, at ``position``."""
        last = min(position + LINE_SIZE - 1, len(data) - LINE_SIZE)
        for place in range(position + 1, last + 1):
            if self._searches == 0:
                break
            self._searches -= 1
            if without_checksum(data[place : place + LINE_SIZE]) is not None:
                return place
        return position + LINE_SIZE - (offset + position) % LINE_SIZE


class OwnerStore(SideStore):
    """Records by device and inode."""

    file_limit = 4 * LIMIT * LINE_SIZE

    def __init__(self) -> None:
        super().__init__("ownership")

    def find(self, device: int, inode: int) -> tuple[int, Record] | None:
        """Return the time of birth (nanoseconds) and the record kept for a file, or None."""
        key_device, journal = self._place(device)
        if journal.is_empty():
            return None
        with self._lock:
            journal.look()
            return _records(journal.contents).find(key_device, inode)

    def keep(self, device: int, inode: int, birth: int, record: Record) -> None:
        """Keep a record. Raises OSError: ENOSPC, EDQUOT, EROFS."""
        key_device, journal = self._place(device)
        with self._lock:
            journal.look()
            records = _records(journal.contents)
            found = records.find(key_device, inode)
            if found == (birth, record):
                return
            is_nothing = record == NOTHING
            if is_nothing and (found is None or found[0] != birth):
                # What is not kept is as good, and takes no room.
                return
            if found is None and records.count >= LIMIT:
                raise failure(errno.ENOSPC)
            journal.add(_pack(key_device, inode, birth, record), is_nothing)

    def _contents(self) -> Contents:
        return _Records()


def is_beginning(data: bytes) -> bool:
    """Return whether there is a line in what a file begins with."""
    records = _Records()
    records.take(data, 0)
    return records.count > 0


def _records(contents: Contents) -> _Records:
    assert isinstance(contents, _Records)
    return contents


def _pack(device: int, inode: int, birth: int, record: Record) -> bytes:
    value = _VALUE.pack(birth, record.uid, record.gid, record.device_type, record.device)
    return with_checksum(_KEY.pack(device, inode) + value)
