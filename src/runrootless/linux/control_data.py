"""Messages in a program's memory: ``struct msghdr`` of recvmsg(2), control data of cmsg(3).

What is there is the program's, and may be anything. It is read as the kernel reads it
(``CMSG_FIRSTHDR``, ``CMSG_NXTHDR``), and what the kernel would refuse ends it.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CREDENTIALS = struct.Struct("=iII")
"""``struct ucred`` of unix(7): pid, uid, gid."""


class Header:
    """A ``struct msghdr``: addresses, and lengths in bytes but for the number of vectors."""

    __slots__ = ("control", "control_size", "name", "name_size", "vector", "vectors")

    def __init__(self, fields: tuple[int, ...]) -> None:
        self.name, self.name_size, self.vector, self.vectors = fields[:4]
        self.control, self.control_size = fields[4:6]


class Layout:
    """How programs lay messages out: ``word`` is the struct format of a size_t of theirs."""

    def __init__(self, word: str, header: str) -> None:
        self._header = struct.Struct(header)
        self._control = struct.Struct(f"={word}ii")
        self._vector = struct.Struct(f"={word}{word}")
        self._word_size = struct.calcsize(word)
        self._end = struct.Struct(f"={word}i")
        self._limit = 1 << (8 * self._word_size - 1)
        self.size = self._header.size
        """Size of ``struct msghdr`` in bytes."""
        self.stride = self.size + self._word_size
        """Size of ``struct mmsghdr``, which begins with one."""
        self.vector_size = self._vector.size
        """Size of ``struct iovec``."""
        self.data_offset = self._control.size
        """From the beginning of a ``struct cmsghdr`` to its data."""
        self.credentials_size = self._control.size + CREDENTIALS.size
        """``CMSG_LEN(sizeof(struct ucred))``."""
        self.name_size_offset = self._word_size
        """Where ``msg_namelen`` is in ``struct msghdr``."""
        self.end_offset = 5 * self._word_size
        """Where ``msg_controllen`` and ``msg_flags`` are, see ``pack_end``."""

    def header(self, data: bytes, offset: int = 0) -> Header:
        """Return the ``struct msghdr`` at an offset of what was read."""
        return Header(self._header.unpack_from(data, offset))

    def pack_end(self, control_size: int, flags: int) -> bytes:
        """Return ``msg_controllen`` and ``msg_flags`` as they are in memory."""
        return self._end.pack(control_size, flags)

    def vectors(self, data: bytes) -> list[tuple[int, int]] | None:
        """Return address and length of each ``struct iovec``; None where one is no length."""
        found = list(self._vector.iter_unpack(data))
        return None if any(length >= self._limit for _, length in found) else found

    def messages(self, control: bytes) -> Iterator[tuple[int, int, int, int]]:
        """Yield level, type, offset and length in bytes of the data of each control message."""
        offset = 0
        while offset + self._control.size <= len(control):
            length, level, kind = self._control.unpack_from(control, offset)
            if not self._control.size <= length <= len(control) - offset:
                return
            yield level, kind, offset + self._control.size, length - self._control.size
            offset += self._aligned(length)

    def _aligned(self, length: int) -> int:
        return length + self.padding(length)

    def padding(self, length: int) -> int:
        """Return how many bytes nobody looks at follow on so many of a control message."""
        return -length % self._word_size


class Builder:
    """Puts control messages into a room of so many bytes, as the kernel's ``put_cmsg`` does."""

    def __init__(self, layout: Layout, room: int) -> None:
        self._layout = layout
        self._room = room
        self.data = b""
        self.is_cut = False
        """Whether there was no room for all: MSG_CTRUNC."""

    def left(self) -> int:
        """Return how many bytes of data there is room for in one more control message."""
        return self._room - len(self.data) - self._layout.data_offset

    def put(self, level: int, kind: int, data: bytes) -> None:
        """Add a control message, or what there is room for of it."""
        if self.left() < 0:
            self.is_cut = True
            return
        kept = data[: self.left()]
        self.is_cut = self.is_cut or len(kept) < len(data)
        length = self._layout.data_offset + len(kept)
        header = self._layout._control.pack(length, level, kind)
        space = self._layout._aligned(length)
        self.data = (self.data + header + kept.ljust(space - len(header), b"\0"))[: self._room]


NATIVE = Layout("Q", "=QI4xQQQQi4x")
"""Of 64-bit programs: x86_64 and aarch64 are the same."""

COMPAT = Layout("I", "=IIIIIIi")
"""Of 32-bit programs on x86_64."""
