"""What a worker takes over from the one before it, besides the records of files.

It is a journal in a memfd: a worker may be killed at any moment, and the next one finds all
that it had noted.
"""

from __future__ import annotations

import binascii
import marshal
import os
from _thread import allocate_lock

from runrootless.emulation.stores.journal import Contents, Journal
from runrootless.emulation.stores.side_store import with_checksum, without_checksum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from typing_extensions import TypeAlias

    Key: TypeAlias = "tuple[int | str, ...]"

_FILE_LIMIT = 1 << 26
_HEADER: Key = ()


class _Entries(Contents):
    """The entries, the one that was changed last at the end, and the sizes of their lines."""

    def __init__(self) -> None:
        self.size = 0
        self.header_size = len(self.header(0))
        self.found: dict[Key, tuple[Any, int]] = {}

    def header(self, generation: int, inode: int = 0) -> bytes:
        # As a text: numbers are of different sizes.
        return pack(_HEADER, f"{generation:020}")

    def padding(self, end: int) -> bytes:
        return b""

    def take(self, data: bytes, offset: int) -> int:
        end = data.rfind(b"\n") + 1
        for text in data[:end].split(b"\n"):
            try:
                line = without_checksum(binascii.a2b_base64(text)) if text else None
            except ValueError:
                line = None
            if line is not None:
                key, value = marshal.loads(line)
                self._set(key, value, len(text) + 2)
        return end

    def lines(self) -> Iterator[bytes]:
        for key, (value, _) in self.found.items():
            yield pack(key, value)

    def clear(self) -> None:
        self.found.clear()
        self.size = 0

    def _set(self, key: Key, value: Any, size: int) -> None:
        if key == _HEADER:
            return
        self.size -= self.found.pop(key, (None, 0))[1]
        if value is not None:
            self.found[key] = value, size
            self.size += size


class LastingMap:
    """Values by keys, of plain types; no key is empty.

    There are ``limit`` of them at most: then the oldest one goes. Made before the workers are
    forked; ``take_over`` is called in each of them before all else. From then on several threads
    may use it.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.fd = os.memfd_create(name)
        """The descriptor that it needs."""
        self._limit = limit
        self._entries = _Entries()
        self._journal = Journal(self._entries, self.fd, True, _FILE_LIMIT)
        self._lock = allocate_lock()

    def take_over(self) -> None:
        """Begin to use it, with what there is by now. Raises OSError: EIO."""
        self._journal.look()

    def __len__(self) -> int:
        return len(self._entries.found)

    def get(self, key: Key) -> Any:
        """Return the value of a key, None if it has none."""
        found = self._entries.found.get(key)
        return None if found is None else found[0]

    def items(self) -> list[tuple[Key, Any]]:
        """Return keys and values, the one that was changed last at the end."""
        return [(key, value) for key, (value, _) in list(self._entries.found.items())]

    def set(self, key: Key, value: Any) -> None:
        """Set the value of a key; None takes it out. Raises OSError: ENOSPC, ENOMEM."""
        with self._lock:
            found = self._entries.found
            while value is not None and key not in found and len(found) >= self._limit:
                self._journal.add(pack(next(iter(found)), None), True)
            if value is not None or key in found:
                self._journal.add(pack(key, value), value is None)


def pack(key: Key, value: Any) -> bytes:
    """Return a line: between newlines, so that one that was cut short does not spoil the next."""
    line = binascii.b2a_base64(with_checksum(marshal.dumps((key, value))), newline=False)
    return b"\n" + line + b"\n"
