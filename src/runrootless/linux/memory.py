"""Another process's memory: process_vm_readv(2)."""

from __future__ import annotations

import errno
import os
import struct
from _thread import _local

from runrootless.linux.libc import address as address_of
from runrootless.linux.libc import c_char, silent_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

PAGE_SIZE = 4096
"""No string or structure may be assumed readable past the next multiple of this, in bytes.
Larger pages are multiples of it."""

_BUFFER_SIZE = 2 * PAGE_SIZE
# ``UIO_MAXIOV``.
_AREAS_LIMIT = 1024
_LAST_ADDRESS = 0xFFFFFFFFFFFFFFFF
# What most paths fit into, in bytes: copying a page would push all else out of the processor's
# caches.
_SHORT = 256
# A struct iovec of an address and a size, which ctypes passes on as it is.
_pack_area = struct.Struct("@PN").pack
_read_areas = silent_function("process_vm_readv")
_write_areas = silent_function("process_vm_writev")


class Memory(_local):
    """Reads and writes the memory of other processes; each thread reuses buffers of its own."""

    def __init__(self) -> None:
        self._buffer = bytearray(_BUFFER_SIZE)
        self._text: Any = (c_char * _BUFFER_SIZE).from_buffer(self._buffer)
        self._address = address_of(self._buffer)
        # It may be larger than what is read into it.
        self._area = _pack_area(self._address, _BUFFER_SIZE)

    def read_string(self, pid: int, address: int, limit: int = PAGE_SIZE) -> bytes | None:
        """Return the NUL-terminated string at ``address`` without its NUL.

        None stands for memory that cannot be read, and a string of ``limit`` bytes or
        more is returned as its first ``limit`` bytes, so that the caller can tell.
        """
        # Reading stops at the end of the page: the next one may not be mapped.
        size = PAGE_SIZE - (address & (PAGE_SIZE - 1))
        if size > _SHORT:
            size = _SHORT
        if _read_areas(pid, self._area, 1, _pack_area(address, size), 1, 0) <= 0:
            return None
        text: bytes = self._text.value
        # Behind what was read are the remains of earlier strings.
        if len(text) < size:
            return text
        buffer = self._buffer
        text = bytes(buffer[:size])
        while len(text) < limit:
            start = address + len(text)
            size = PAGE_SIZE - (start & (PAGE_SIZE - 1))
            if self._transfer(pid, start, size) <= 0:
                return None
            end = buffer.find(0, 0, size)
            if end >= 0:
                return text + bytes(buffer[:end])
            text += bytes(buffer[:size])
        return text[:limit]

    def read(self, pid: int, address: int, size: int) -> bytes | None:
        """Return ``size`` bytes from ``address``, or None where not all can be read."""
        parts = []
        while size > 0:
            part = min(size, _BUFFER_SIZE)
            if self._transfer(pid, address, part) != part:
                return None
            parts.append(bytes(self._buffer[:part]))
            address += part
            size -= part
        return b"".join(parts)

    def write(
        self,
        pid: int,
        parts: Sequence[tuple[int, bytes | bytearray]],
        is_wanted: Callable[[], bool],
    ) -> bool:
        """Write each of ``parts``, bytes at an address; return whether all could be written.

        ``is_wanted`` is asked right before: between its answer and the kernel's writing there
        is nothing that could be done before. Raises InterruptedError where it says no.
        """
        for areas, count, size in self._batches(parts):
            here = _pack_area(self._address, size)
            if not is_wanted():
                raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
            if _write_areas(pid, here, 1, areas, count, 0) != size:
                return False
        return True

    def _batches(
        self, parts: Sequence[tuple[int, bytes | bytearray]]
    ) -> Iterator[tuple[bytes, int, int]]:
        """Put parts into the buffer; tell areas in the other's memory, their number and size."""
        areas: list[bytes] = []
        used = 0
        for address, data in parts:
            for start in range(0, len(data), _BUFFER_SIZE):
                part = data[start : start + _BUFFER_SIZE]
                if used + len(part) > _BUFFER_SIZE or len(areas) == _AREAS_LIMIT:
                    yield b"".join(areas), len(areas), used
                    areas, used = [], 0
                self._buffer[used : used + len(part)] = part
                used += len(part)
                areas.append(_pack_area((address + start) & _LAST_ADDRESS, len(part)))
        if areas:
            yield b"".join(areas), len(areas), used

    def _transfer(self, pid: int, address: int, size: int) -> int:
        if address + size > _LAST_ADDRESS:
            return -1
        copied: int = _read_areas(pid, self._area, 1, _pack_area(address, size), 1, 0)
        return copied
