"""Writing what gzip(1) reads, with several processors: RFC 1952.

Parts of a fixed size are compressed by themselves and joined, so that the result depends
neither on how many processors there are nor on how the data come; it has no time and no name.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

_LEVEL = 6
_PART = 1 << 20
_ZEROS = bytes(_PART)
_WORKERS_LIMIT = 8
# No flags, no time; compressed neither slowest nor fastest, by who knows what system.
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


class GzipWriter:
    """Compresses what ``write`` is called with, and gives it to ``output`` in order."""

    def __init__(self, output: Callable[[bytes], object]) -> None:
        self._output = output
        workers = min(len(os.sched_getaffinity(0)), _WORKERS_LIMIT)
        self._pool = ThreadPoolExecutor(workers)
        self._most = 2 * workers
        self._waiting: deque[Future[bytes]] = deque()
        self._data = bytearray()
        self._sum = 0
        self._size = 0
        output(_HEADER)

    def write(self, data: bytes) -> None:
        """Compress some more. Raises what ``output`` raises."""
        self._sum = zlib.crc32(data, self._sum)
        self._size += len(data)
        self._data += data
        while len(self._data) >= _PART:
            self._begin(bytes(self._data[:_PART]), zlib.Z_SYNC_FLUSH)
            del self._data[:_PART]

    def close(self) -> None:
        """Write the end. Raises what ``output`` raises."""
        self._begin(bytes(self._data), zlib.Z_FINISH)
        while self._waiting:
            self._output(self._waiting.popleft().result())
        self._output(self._sum.to_bytes(4, "little"))
        self._output((self._size & 0xFFFFFFFF).to_bytes(4, "little"))
        self.leave()

    def leave(self) -> None:
        """End the threads; what was not written is lost."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(self, part: bytes, flush: int) -> None:
        while len(self._waiting) >= self._most:
            self._output(self._waiting.popleft().result())
        self._waiting.append(self._pool.submit(_compress, part, flush))


def _compress(part: bytes, flush: int) -> bytes:
    # Of a large hole there are many such parts.
    return _compressed_zeros() if part == _ZEROS else _compress_anew(part, flush)


@cache
def _compressed_zeros() -> bytes:
    return _compress_anew(_ZEROS, zlib.Z_SYNC_FLUSH)


def _compress_anew(part: bytes, flush: int) -> bytes:
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(part) + compressor.flush(flush)
