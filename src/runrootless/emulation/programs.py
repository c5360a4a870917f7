"""The programs whose execution the loop in C lets through: ``struct programs`` of
native/loop_programs.h.
"""

from __future__ import annotations

import struct

from runrootless.linux.libc import address

_HEAD = struct.Struct("=QQQ40s")
_KEY = struct.Struct("@Q")
_LIMIT = 1024
_MASK = (1 << 64) - 1
# As ``key_of`` of native/loop_programs.h has it.
_FACTOR = 0x9E3779B97F4A7C15


class Programs:
    """What is known of programs, in memory at ``address``. Any thread may call any method.

    Those without set-ID bits, executed by root, change nobody's credentials. So they are the
    kernel's, where nobody takes note of them: but for scripts, whose interpreters count; and with
    the fast path for those that cannot load its object, or do not find it under its name.
    """

    def __init__(self) -> None:
        self._memory = bytearray(_HEAD.size + _LIMIT * _KEY.size)
        self._observed = 0
        self._place = 0, 0
        self._name = b""
        self.address = address(self._memory)

    def observe(self) -> None:
        """Leave all of them to Python from now on."""
        self._observed = 1
        self._show()

    def preload(self, name: bytes, place: tuple[int, int]) -> None:
        """Say where the object of the fast path is: its path, st_dev and st_ino."""
        self._name, self._place = name, place
        self._show()

    def know(self, device: int, inode: int, changed: int) -> None:
        """Take note of a program that is no script, and can load the object if there is one.

        ``changed`` is its st_ctime in nanoseconds: a change of the file changes that.
        """
        key = _key_of(device, inode, changed)
        # One store of eight bytes: the loop sees either the one that was there or this one.
        _KEY.pack_into(self._memory, _HEAD.size + key % _LIMIT * _KEY.size, key)

    def _show(self) -> None:
        _HEAD.pack_into(self._memory, 0, self._observed, *self._place, self._name)


def _key_of(*numbers: int) -> int:
    key = 0
    for number in numbers:
        key = (key ^ number & _MASK) * _FACTOR & _MASK
        key ^= key >> 32
    return key
