"""An append-only file of lines that several processes share, each line found by its text.

A line never changes, is found by its place, and is there once. Each names the user who pays
for it: each user's lines are limited, so that nobody can use the file up for others. A line
that did not fit on the disk completely is removed again, by its writer or by the next one.

Where a line begins is counted in units of ``UNIT`` bytes, to which lines are padded.
"""

from __future__ import annotations

import errno
import fcntl
import os
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNIT = 16
UNIT_BITS = 22
"""How many bits a place takes, in units."""

SIZE_LIMIT = UNIT << UNIT_BITS
"""The file's largest size in bytes (64 MiB). What is kept in memory about it is two integers
of four bytes for each line, rounded up to a power of two: at most 32 MiB."""

ROOT = 0
"""Who pays for what the privileged add."""

ROOT_SHARE = SIZE_LIMIT // 4 * 3
"""How many bytes root may add; the rest is left to users."""

USER_LINES = 1024
"""How many lines of a class a user may add, and in ``USER_SHARE`` bytes at most."""

USER_SHARE = 256 * 1024

_SPACE = b" " * UNIT
_PAYER = b" @"
_PART = 1 << 20
_LINE = 4096
_FIRST_SLOTS = 1024


class FullError(OSError):
    """There is no room for a line: in the file, in what its payer may add, or on the disk.

    ``errno`` is ENOMEM, which is what the call of a program fails with; ``reason`` is for
    the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(errno.ENOMEM, os.strerror(errno.ENOMEM))
        self.reason = reason


class EntryFile:
    """The file; ``fd`` is opened O_RDWR|O_APPEND. Any thread may call any method.

    The first line is ``head``'s, called where the file is empty; it is at 0.
    """

    def __init__(self, fd: int, head: Callable[[], bytes]) -> None:
        self._fd = fd
        self._head = head
        self._lock = allocate_lock()
        self._size = 0
        self._lines = 0
        # Places by hashes of texts, each plus one: an open hash table.
        self._slots = _table(_FIRST_SLOTS)
        self._paid: dict[tuple[int, bytes], tuple[int, int]] = {}

    def text(self, place: int) -> bytes | None:
        """Return the text of the line that begins at a place; None if none does.

        Raises OSError.
        """
        start = place * UNIT
        # With the end of the line before, for a place may be anybody's guess.
        before = 1 if start else 0
        data = os.pread(self._fd, _LINE, start - before)
        if before and data[:1] != b"\n":
            return None
        end = data.find(b"\n", before)
        while end < 0:
            part = os.pread(self._fd, _PART, start - before + len(data))
            if not part:
                return None
            end = part.find(b"\n")
            end = len(data) + end if end >= 0 else -1
            data += part
        return _split(data[before:end])[0]

    def place(self, text: bytes, payer: int) -> int:
        """Return where the line with this text is, which ``payer`` adds if it is not there.

        What a user adds is counted apart by the first letter. Raises FullError, OSError.
        """
        with self._lock:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                self._catch_up()
                if not self._size:
                    self._append(self._head(), ROOT)
                found = self._find(text)
                if found < 0:
                    self._require_room(text, payer)
                    found = self._append(text, payer)
                return found
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _require_room(self, text: bytes, payer: int) -> None:
        size = len(_line(text, payer))
        lines, paid = self._paid.get(_account(text, payer), (0, 0))
        if payer == ROOT:
            if paid + size > ROOT_SHARE:
                raise FullError(f"root has used up its {ROOT_SHARE} bytes")
        elif lines >= USER_LINES or paid + size > USER_SHARE:
            raise FullError(f"user {payer} has used up {USER_LINES} entries or {USER_SHARE} bytes")
        if self._size + size > SIZE_LIMIT - UNIT:
            raise FullError(f"its {SIZE_LIMIT} bytes are used up")

    def _append(self, text: bytes, payer: int) -> int:
        line = _line(text, payer)
        place = self._size // UNIT
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise FullError(os.strerror(error.errno or errno.ENOSPC)) from error
        if written < len(line):
            os.ftruncate(self._fd, self._size)
            raise FullError(os.strerror(errno.ENOSPC))
        self._take(line)
        return place

    def _catch_up(self) -> None:
        """Take note of what has been added since the last time, while nobody adds."""
        size = os.fstat(self._fd).st_size
        if size == self._size:
            return
        for line in self._read(self._size):
            self._take(line)
        if self._size < size:
            # Its writer has ended in the midst of a line.
            os.ftruncate(self._fd, self._size)

    def _read(self, start: int, end: int = SIZE_LIMIT) -> Iterator[bytes]:
        """Return the whole lines between two offsets."""
        rest = b""
        while part := os.pread(self._fd, min(_PART, end - start), start):
            start += len(part)
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line + b"\n"

    def _take(self, line: bytes) -> None:
        """Take note of the next line."""
        text, payer = _split(line)
        self._lines += 1
        if 2 * self._lines > len(self._slots):
            self._grow()
        self._enter(text, self._size // UNIT)
        account = _account(text, payer)
        lines, size = self._paid.get(account, (0, 0))
        self._paid[account] = lines + 1, size + len(line)
        self._size += len(line)

    def _enter(self, text: bytes, place: int) -> None:
        mask = len(self._slots) - 1
        slot = hash(text) & mask
        while self._slots[slot]:
            slot = slot + 1 & mask
        self._slots[slot] = place + 1

    def _grow(self) -> None:
        self._slots = _table(2 * len(self._slots))
        at = 0
        for line in self._read(0, self._size):
            self._enter(_split(line)[0], at // UNIT)
            at += len(line)

    def _find(self, text: bytes) -> int:
        wanted = text + _PAYER
        mask = len(self._slots) - 1
        slot = hash(text) & mask
        while found := self._slots[slot]:
            if os.pread(self._fd, len(wanted), (found - 1) * UNIT) == wanted:
                return found - 1
            slot = slot + 1 & mask
        return -1


def _table(slots: int) -> memoryview:
    # The module "array" imports "collections", which takes an agent's start a millisecond.
    return memoryview(bytearray(4 * slots)).cast("I")


def _line(text: bytes, payer: int) -> bytes:
    line = text + _PAYER + b"%d" % payer
    return line + _SPACE[: -(len(line) + 1) % UNIT] + b"\n"


def _account(text: bytes, payer: int) -> tuple[int, bytes]:
    """Return what a line counts for: all of root's for one, those of a user by their class."""
    return payer, b"" if payer == ROOT else text[:1]


def _split(line: bytes) -> tuple[bytes, int]:
    """Return a line's text and the user who pays for it."""
    text, _, payer = line.rpartition(_PAYER)
    payer = payer.strip()
    return text, int(payer) if payer.isdigit() else ROOT
