"""Files whose owner or mode is not what they carry: the loop in C leaves these to Python.

``struct apart`` of native/loop_answers.h.
"""

from __future__ import annotations

import struct
from _thread import allocate_lock

from runrootless.linux.libc import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_COUNT = struct.Struct("=Q")
_PLACE = struct.Struct("=QQ")
_LIMIT = 64


class Apart:
    """Such files by st_dev and st_ino, in memory at ``address``. Any thread may add some.

    No entry is removed: an old one only makes calls slower.
    """

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._places: dict[tuple[int, int], None] = {}
        self._memory = bytearray(_COUNT.size + _LIMIT * _PLACE.size)
        self.address = address(self._memory)
        self._publish: Callable[[bytes], None] | None = None

    def show(self, publish: Callable[[bytes], None]) -> None:
        """Have all changes published from now on, and what there is. Raises what that does."""
        with self._lock:
            self._publish = publish
            publish(bytes(self._memory))

    def add(self, device: int, inode: int = 0) -> None:
        """Add a file, or all of a device; that is done too where there is no room for a file."""
        with self._lock:
            if (device, inode) in self._places or (device, 0) in self._places:
                return
            count = len(self._places)
            if count >= _LIMIT // 2:
                inode = 0
            if count >= _LIMIT:
                # Whatever the device is.
                _COUNT.pack_into(self._memory, 0, _LIMIT + 1)
            else:
                _PLACE.pack_into(self._memory, _COUNT.size + count * _PLACE.size, device, inode)
                self._places[device, inode] = None
                _COUNT.pack_into(self._memory, 0, count + 1)
            if self._publish is not None:
                self._publish(bytes(self._memory))
