"""What a layer is read through: its digest checked, decompressed, its size limited.

Reading and decompressing happen in a thread, beside the unpacking: hashing, decompressing and
system calls let go of the interpreter.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import zlib

from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO, Protocol

    class Decompressor(Protocol):
        """What the compressors' modules have in common."""

        eof: bool
        unused_data: bytes

        def decompress(self, data: bytes, /) -> bytes:
            """Return what comes of ``data``."""


_CHUNK = 1 << 18
_QUEUE = 16
_PIECE = 1 << 20
# Of zstd, where 128 KiB may come of each four bytes.
_LITTLE = 1 << 10
_ALGORITHMS = {"sha256": 64, "sha384": 96, "sha512": 128}
_GZIP, _ZSTD, _XZ, _BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
# So large a window zstd itself takes without being told to.
_ZSTD_WINDOW = 1 << 27
_XZ_MEMORY = 100 << 20


class DamagedError(Error):
    """What is read is not what it should be."""


class Digest:
    """A digest as OCI writes it, ``algorithm:hex``, and what it is of, as far as it is read."""

    def __init__(self, text: str) -> None:
        """Raises Error for what is no digest that can be checked."""
        algorithm, _, value = text.partition(":")
        length = _ALGORITHMS.get(algorithm, 0)
        if len(value) != length or not length or set(value) - set("0123456789abcdef"):
            raise Error(f"{text[:200]!r} is no digest of an image: sha256, sha384 or sha512")
        self.text = text
        self._hash = hashlib.new(algorithm)

    def update(self, data: bytes) -> None:
        """Take note of what follows."""
        self._hash.update(data)

    def is_right(self) -> bool:
        """Return whether what was read has this digest."""
        return self.text.endswith(":" + self._hash.hexdigest())


class Limit:
    """How much an image may come to, in bytes: what is read is counted over all layers."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.used = 0

    def add(self, count: int) -> None:
        """Count so many bytes more. Raises Error where it is too much."""
        self.used += count
        if self.used > self.maximum:
            raise Error(
                f"what is to be unpacked has more than {self.maximum} bytes: "
                "if that is to be so, say --max-size"
            )


class Stream:
    """A file that is read once, decompressed, by ``read``; used as a context.

    ``digest`` is of what is stored and ``diff_id`` of what comes of it: both are checked by
    ``finish``, when all is read, unless they are empty. ``what`` names it in errors. All
    methods raise Error, and OSError where ``file`` does. ``file`` is closed in the end.
    """

    def __init__(
        self,
        file: BinaryIO,
        what: str,
        limit: Limit,
        *,
        digest: str = "",
        diff_id: str = "",
        size: int = -1,
    ) -> None:
        self._file = file
        self._what = what
        self._limit = limit
        self._digest = Digest(digest) if digest else None
        self._diff_id = Digest(diff_id) if diff_id else None
        self._size = size
        self._parts: queue.Queue[bytes | BaseException] = queue.Queue(_QUEUE)
        self._over = False
        self._rest = b""
        self._at = 0
        self._ended = False
        self._error: BaseException | None = None
        self.stored = 0
        """How many bytes have been read of the file."""
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        while self._thread.is_alive():
            try:
                self._parts.get(timeout=0.05)
            except queue.Empty:
                continue
        self._file.close()

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer only at the end."""
        rest, at = self._rest, self._at
        end = at + size
        if end <= len(rest):
            self._at = end
            return rest[at:end]
        parts = [rest[at:]]
        missing = end - len(rest)
        self._rest, self._at = b"", 0
        while missing > 0 and not self._ended:
            part = self._next()
            if len(part) > missing:
                self._rest, self._at = part, missing
                part = part[:missing]
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Read to the end, and check what is known of it."""
        while not self._ended:
            self._next()
        if self._error is not None:
            raise self._error
        if self._size >= 0 and self.stored != self._size:
            raise DamagedError(f"{self._what} has {self.stored} bytes in place of {self._size}")
        for digest, which in ((self._digest, "digest"), (self._diff_id, "diff ID")):
            if digest is not None and not digest.is_right():
                raise DamagedError(
                    f"{self._what} has not the {which} {digest.text}: it is damaged, get it again"
                )

    def _next(self) -> bytes:
        part = self._parts.get()
        if isinstance(part, BaseException):
            self._ended = True
            self._error = part
            raise part
        if not part:
            self._ended = True
        return part

    def _work(self) -> None:
        try:
            for part in self._decompressed():
                if self._over:
                    return
                if part:
                    self._limit.add(len(part))
                    if self._diff_id is not None:
                        self._diff_id.update(part)
                    self._put(part)
            self._put(b"")
        except BaseException as error:
            self._put(error)

    def _put(self, part: bytes | BaseException) -> None:
        while not self._over:
            try:
                self._parts.put(part, timeout=0.2)
                return
            except queue.Full:
                continue

    def _stored_parts(self) -> Iterator[bytes]:
        while data := self._file.read(_CHUNK):
            self.stored += len(data)
            if self._size >= 0 and self.stored > self._size:
                raise DamagedError(f"{self._what} has more than {self._size} bytes")
            if self._digest is not None:
                self._digest.update(data)
            yield data

    def _decompressed(self) -> Iterator[bytes]:
        parts = self._stored_parts()
        first = next(parts, b"")
        while 0 < len(first) < 6 and (more := next(parts, b"")):
            first += more
        make = _decompressor(first)
        if make is None:
            yield first
            yield from parts
            return
        try:
            yield from self._members(first, parts, make)
        except (zlib.error, EOFError, ValueError, OSError) as error:
            raise DamagedError(f"{self._what} is damaged: {error}: get it again") from None
        except Exception as error:
            # lzma and zstandard have errors of their own, which have no common base.
            if type(error).__name__ not in ("LZMAError", "ZstdError"):
                raise
            raise DamagedError(f"{self._what} is damaged: {error}: get it again") from None

    def _members(self, first: bytes, parts: Iterator[bytes], make: Any) -> Iterator[bytes]:
        """Yield what comes of one compressed member after the other."""
        decompress: Decompressor = make()
        data = first
        began = False
        while True:
            while data:
                if decompress.eof:
                    # Zeros may follow: gzip(1) ignores them.
                    if not data.strip(b"\0"):
                        data = b""
                        break
                    decompress, began = make(), False
                began = True
                yield from _pieces(decompress, data)
                data = decompress.unused_data if decompress.eof else b""
            data = next(parts, b"")
            if not data:
                break
        if began and not decompress.eof:
            raise EOFError("it ends too early")


def _pieces(decompress: Any, data: bytes) -> Iterator[bytes]:
    """Yield what comes of ``data`` in pieces of limited size, where the module can do that."""
    if hasattr(decompress, "unconsumed_tail"):
        # zlib.
        while True:
            piece = decompress.decompress(data, _PIECE)
            data = decompress.unconsumed_tail
            yield piece
            if decompress.eof or (not data and len(piece) < _PIECE):
                return
    if hasattr(decompress, "needs_input"):
        # lzma, bz2, compression.zstd.
        while True:
            piece = decompress.decompress(data, _PIECE)
            yield piece
            data = b""
            if decompress.eof or decompress.needs_input:
                return
    # zstandard has no such limit: little is put in at a time.
    for at in range(0, len(data), _LITTLE):
        yield decompress.decompress(data[at : at + _LITTLE])
        if decompress.eof:
            decompress.rest = decompress.unused_data + data[at + _LITTLE :]
            return


def _decompressor(beginning: bytes) -> Any:
    """Return what makes a decompressor for a file that begins so; None if there is none."""
    if beginning.startswith(_GZIP):
        return lambda: zlib.decompressobj(16 + zlib.MAX_WBITS)
    if beginning.startswith(_XZ):
        import lzma

        return lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
    if beginning.startswith(_BZIP2):
        import bz2

        return bz2.BZ2Decompressor
    if beginning.startswith(_ZSTD) or beginning[1:4] == _ZSTD_SKIPPABLE:
        return _zstd()
    return None


def _zstd() -> Any:
    try:
        # Since Python 3.14.
        from compression import zstd

        return lambda: zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW.bit_length() - 1}
        )
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError:
        raise Error(
            "a layer is compressed with zstd, which needs the package zstandard: "
            "pip install 'runrootless[images]'"
        ) from None
    return lambda: _Zstandard(zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW))


class _Zstandard:
    """zstandard's decompressor: ``rest`` is what follows its frame."""

    def __init__(self, decompressor: Any) -> None:
        self._object = decompressor.decompressobj()
        self.rest: bytes | None = None

    @property
    def eof(self) -> bool:
        return bool(self._object.eof)

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data if self.rest is None else self.rest

    def decompress(self, data: bytes) -> bytes:
        """Return what comes of ``data``."""
        return bytes(self._object.decompress(data))
