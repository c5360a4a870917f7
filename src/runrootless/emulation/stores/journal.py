"""A file of lines, each of which records a change: the last line about a key counts.

Several agents share it, as containers on one rootfs do. A writer locks the file (fcntl(2): a
killed process loses its lock) and first reads what others have added. A reader compares the
end and the first line, and reads under a lock where these have changed.

The file stays one inode, so no directory is needed, and it is compacted while it is in use:
all that counts is added once more at the end; then the beginning is written over with the
same, under a new first line; then the rest is cut off. Killed anywhere in between, the file
says the same as before, only at greater length: the lines that are left of the old ones are
in their order, and what counts follows them.
"""

from __future__ import annotations

import errno
import fcntl
import os

from runrootless.emulation.call import failure
from runrootless.emulation.stores import copied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MINIMUM = 1 << 20
"""A file of fewer bytes is not compacted, a larger one when half of it no longer counts."""

_BLOCK = 1 << 20
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class Contents:
    """What the lines of a journal say, and how."""

    size = 0
    """How many bytes the lines take that say all that counts."""

    header_size = 0
    """The size in bytes of the first line."""

    def header(self, generation: int, inode: int = 0) -> bytes:
        """Return a first line, which says a number of 64 bits, and what inode its file has.

        That is 0 where nobody asks: see ``copied.py``.
        """
        raise NotImplementedError

    def padding(self, end: int) -> bytes:
        """Return what is to be between ``end`` (an offset) and a line that is added there."""
        raise NotImplementedError

    def take(self, data: bytes, offset: int) -> int:
        """Take the lines in ``data`` to heart, which is read from ``offset`` on.

        Return how many bytes need not be read again. What is no line is passed over.
        """
        raise NotImplementedError

    def lines(self) -> Iterable[bytes]:
        """Return lines that say all that counts, of ``size`` bytes."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forget all lines."""
        raise NotImplementedError


class Journal:
    """One file of lines, open as ``fd``.

    Not thread-safe, but for ``is_empty``. One that ``is_private`` is used by one process at a
    time, which calls ``look`` before all else. What is not to be ``writable`` is only read.
    """

    def __init__(
        self, contents: Contents, fd: int, is_private: bool, limit: int, writable: bool = True
    ) -> None:
        self.contents = contents
        self.writable = writable
        self._fd = fd
        self._is_private = is_private
        self._limit = limit
        self._locks = not is_private
        self._first = b""
        self._read = 0
        self._end = 0
        self._compact_from = 0

    def is_empty(self) -> bool:
        """Return whether nothing was ever added. Any thread may ask."""
        if self._end:
            return False
        return self._is_private or os.lseek(self._fd, 0, os.SEEK_END) == 0

    def look(self) -> None:
        """Read what others have added. Raises OSError: EIO."""
        if self._end and (self._is_private or self._is_current()):
            return
        self._lock(fcntl.LOCK_SH)
        try:
            self._catch_up()
        finally:
            self._unlock()

    def add(self, line: bytes, is_removal: bool = False) -> None:
        """Add a line, and take it to heart.

        Raises OSError, and then nothing is added: ENOSPC, EDQUOT, EROFS, EIO. What removes
        something may make the file larger than its limit, for as long as it is not compacted.
        """
        if not self.writable:
            raise failure(errno.EROFS)
        self._lock(fcntl.LOCK_EX)
        try:
            self._catch_up()
            end = self._end
            if end > self._limit and not is_removal:
                raise failure(errno.ENOSPC)
            before = self.contents.padding(end) if end else self._new_header()
            self._write_or_leave(end, before + line)
            self._catch_up()
            if self._end > max(MINIMUM, self._compact_from, 2 * self.contents.size):
                self._compact()
        finally:
            self._unlock()

    def _is_current(self) -> bool:
        end = os.lseek(self._fd, 0, os.SEEK_END)
        return end == self._end and self._read_first() == self._first

    def _read_first(self) -> bytes:
        return os.pread(self._fd, self.contents.header_size, 0)

    def _new_header(self) -> bytes:
        inode = 0 if self._is_private else os.fstat(self._fd).st_ino & copied.MASK
        return self.contents.header(int.from_bytes(os.urandom(8), "little"), inode)

    def _catch_up(self) -> None:
        first = self._read_first()
        if first != self._first:
            # Compacted in the meantime.
            self.contents.clear()
            self._read = self._end = 0
            self._first = first
        end = os.lseek(self._fd, 0, os.SEEK_END)
        if end == self._end:
            return
        while True:
            data = os.pread(self._fd, _BLOCK, self._read)
            taken = self.contents.take(data, self._read) if data else 0
            self._read += taken
            if not taken or taken == len(data) < _BLOCK:
                break
        self._end = end

    def _compact(self) -> None:
        """Make the file say the same in fewer lines, if it can be written to."""
        if not (self._locks or self._is_private):
            return
        end = self._end
        lines = b"".join(self.contents.lines())
        header = self._new_header()
        try:
            self._write_or_leave(end, self.contents.padding(end) + lines)
            # What follows must not be on the disk before.
            os.fdatasync(self._fd)
            self._first = b""
            self._write(0, header)
            self._write(len(header), lines)
            os.fdatasync(self._fd)
            os.ftruncate(self._fd, len(header) + len(lines))
        except OSError:
            # A full disk: tried again when it has grown by a quarter.
            self._compact_from = end + end // 4
            return
        self._compact_from = 0
        self._first = header
        self._read = self._end = len(header) + len(lines)

    def _write_or_leave(self, end: int, data: bytes) -> None:
        """Add ``data`` at the end, or nothing. Raises OSError."""
        try:
            self._write(end, data)
        except OSError as error:
            if self._locks or self._is_private:
                os.ftruncate(self._fd, end)
            if error.errno == errno.EFBIG:
                # RLIMIT_FSIZE.
                raise failure(errno.ENOSPC) from None
            raise

    def _write(self, offset: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._fd, rest, offset)
            offset += written
            rest = rest[written:]

    def _lock(self, kind: int) -> None:
        if not self._locks:
            return
        try:
            fcntl.lockf(self._fd, kind if self.writable else fcntl.LOCK_SH, 1)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            # Some NFS and Lustre: then lines are added by the kernel, and nothing is compacted.
            self._locks = False
            flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_APPEND)

    def _unlock(self) -> None:
        if self._locks:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1)
