"""The owners of files that cannot carry them, and what device nodes stand for.

A line of 48 bytes for each change. One that was cut short shifts those that follow, so
the next one is looked for at each byte.
"""

from __future__ import annotations

import struct

from runrootless.emulation.record import NOTHING, Record
from runrootless.emulation.side_store import (
    CHECK_SIZE,
    SideStore,
    with_checksum,
    without_checksum,
)

_LINE = struct.Struct("=QQqIIIQ")
LINE_SIZE = _LINE.size + CHECK_SIZE
"""Size of one line in bytes."""


class OwnerStore(SideStore):
    """Records by device and inode."""

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[tuple[int, int], tuple[int, Record]] = {}

    def find(self, device: int, inode: int) -> tuple[int, Record] | None:
        """Return the time of birth (nanoseconds) and the record kept for a file, or None."""
        self._look()
        if not self._records:
            return None
        return self._records.get((self._key_device(device), inode))

    def keep(self, device: int, inode: int, birth: int, record: Record) -> None:
        """Keep a record. Raises OSError: ENOSPC, EDQUOT, EROFS."""
        found = self.find(device, inode)
        if found == (birth, record):
            return
        if record == NOTHING and (found is None or found[0] != birth):
            # What is not kept is as good, and takes no room.
            return
        key_device = self._key_device(device)
        if not self._append(key_device, _pack(key_device, inode, birth, record)):
            self._records[key_device, inode] = (birth, record)

    def _take(self, data: bytes) -> int:
        position = 0
        while position + LINE_SIZE <= len(data):
            line = without_checksum(data[position : position + LINE_SIZE])
            if line is None:
                position += 1
                continue
            device, inode, birth, *values = _LINE.unpack(line)
            self._records[device, inode] = (birth, Record(*values))
            position += LINE_SIZE
        return position

    def _lines(self) -> list[bytes]:
        self._records = {key: kept for key, kept in self._records.items() if kept[1] != NOTHING}
        return [
            _pack(device, inode, birth, record)
            for (device, inode), (birth, record) in self._records.items()
            if not self._stays_in_memory(device)
        ]

    def _lines_size(self) -> int:
        return LINE_SIZE * len(self._records)

    def _forget(self) -> None:
        self._records = {
            key: kept for key, kept in self._records.items() if self._stays_in_memory(key[0])
        }


def _pack(device: int, inode: int, birth: int, record: Record) -> bytes:
    return with_checksum(
        _LINE.pack(device, inode, birth, record.uid, record.gid, record.device_type, record.device)
    )
