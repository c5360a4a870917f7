"""Another process's memory: process_vm_readv(2)."""

from __future__ import annotations

import struct
from _thread import _local

from runrootless.linux.libc import address as address_of
from runrootless.linux.libc import c_char, silent_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PAGE_SIZE = 4096
"""No string or structure may be assumed readable past the next multiple of this, in bytes.
Larger pages are multiples of it."""

_BUFFER_SIZE = 2 * PAGE_SIZE
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
        # It may be larger than what is read into it.
        self._area = _pack_area(address_of(self._buffer), _BUFFER_SIZE)

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
            if self._transfer(_read_areas, pid, start, size) <= 0:
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
            if self._transfer(_read_areas, pid, address, part) != part:
                return None
            parts.append(bytes(self._buffer[:part]))
            address += part
            size -= part
        return b"".join(parts)

    def write(self, pid: int, address: int, data: bytes | bytearray) -> bool:
        """Write ``data`` at ``address``; return whether all of it could be written."""
        for start in range(0, len(data), _BUFFER_SIZE):
            part = data[start : start + _BUFFER_SIZE]
            self._buffer[: len(part)] = part
            if self._transfer(_write_areas, pid, address + start, len(part)) != len(part):
                return False
        return True

    def _transfer(self, call: Callable[..., int], pid: int, address: int, size: int) -> int:
        if address + size > 0xFFFFFFFFFFFFFFFF:
            return -1
        return call(pid, self._area, 1, _pack_area(address, size), 1, 0)
