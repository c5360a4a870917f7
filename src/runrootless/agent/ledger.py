"""The calls that are being answered, in memory that outlasts the worker.

The kernel hands a notification over once. A worker that is killed with one in hand would leave
its caller waiting for ever. So each is received into memory that the supervisor shares, which
also says how far its answer has come. Workers use the two halves in turn: threads of the last
worker may still be ending in the other half.
"""

from __future__ import annotations

import mmap
import struct
from _thread import allocate_lock

from runrootless.linux.libc import address
from runrootless.linux.seccomp import NOTIFICATION_SIZE

SLOTS = 4096
"""How many calls one worker may have in hand, those that wait for something included."""

# Bytes of a slot: two cache lines. Behind the notification there are one byte that says that
# the call may have had its effect by now, one that says that its thread has been in it for
# long, one that counts the workers that have ended with it in hand; and its listener's number.
_SIZE = 128
_BEGUN = NOTIFICATION_SIZE
_STUCK = NOTIFICATION_SIZE + 1
_ATTEMPTS = NOTIFICATION_SIZE + 2
_LISTENER = NOTIFICATION_SIZE + 4
_CALL_SIZE = NOTIFICATION_SIZE + 3
_IDENTIFIER_SIZE = 8

NOTHING = bytes(_CALL_SIZE)
"""What a slot holds without a call."""

NO_CALL = bytes(_IDENTIFIER_SIZE)
"""What a slot without a call begins with: the kernel's identifiers are random."""

_NUMBER = struct.Struct("=I")
_HALF = SLOTS * _SIZE
_HEADER_SIZE = 4096

VARIED = 0
"""Offset in ``Ledger.header``: whether views of files may vary."""

CROWDED = 1
"""Offset in ``Ledger.header``: a worker has ended since too many of its calls hung."""

SERVING = 2
"""Offset in ``Ledger.header``: the worker has come so far as to answer calls."""

HANGING = 3
"""Offset in ``Ledger.header``: calls hang, so that not all of the worker may end when it does."""

INTERRUPTED = 4
"""Offset in ``Ledger.header``: something is remembered of calls that were interrupted, so that
quick handlers are not to answer any (``agent/undelivered.py``)."""

# Two numbers: how many slots of each half were ever in use.
_USED = 8


class Slot:
    """The place where one call is noted until it has an answer.

    ``notification`` is what the kernel writes to ``address``, and ``identifier`` its beginning;
    ``call`` is that and what belongs to it, as ``NOTHING`` is; ``begun`` is a byte of it.
    """

    __slots__ = ("address", "begun", "call", "identifier", "notification", "offset", "stuck")

    def __init__(self, memory: memoryview, offset: int, address: int) -> None:
        self.call = memory[:_CALL_SIZE]
        self.notification = memory[:NOTIFICATION_SIZE]
        self.identifier = memory[:_IDENTIFIER_SIZE]
        self.begun = memory[_BEGUN : _BEGUN + 1]
        self.stuck = memory[_STUCK : _STUCK + 1]
        self.offset = offset
        self.address = address

    def note(self, call: bytes) -> None:
        """Note a call, as ``Found`` has it, or as another slot does."""
        # The beginning is what makes it one.
        self.call[_IDENTIFIER_SIZE:] = call[_IDENTIFIER_SIZE:]
        self.identifier[:] = call[:_IDENTIFIER_SIZE]


class Found:
    """A call that a worker left without an answer, and how far it had come.

    ``listener`` is the number of its listener.
    """

    __slots__ = ("attempts", "begun", "listener", "notification", "stuck")

    def __init__(self, memory: bytes) -> None:
        self.notification = memory[:NOTIFICATION_SIZE]
        self.begun = bool(memory[_BEGUN])
        self.stuck = bool(memory[_STUCK])
        self.attempts = memory[_ATTEMPTS]
        (self.listener,) = _NUMBER.unpack_from(memory, _LISTENER)

    def key(self) -> tuple[int, bytes]:
        """Return what tells the call from all others."""
        return self.listener, self.notification[:_IDENTIFIER_SIZE]

    def packed(self) -> bytes:
        """Return it as it is noted in a slot, by somebody who answers it anew."""
        return self.notification + bytes((self.begun, 0, min(self.attempts, 255)))


class Ledger:
    """The memory shared by all workers of one container. Raises OSError where there is none."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _HEADER_SIZE + 2 * _HALF)
        self._address = address(self._memory)
        self._view = memoryview(self._memory)
        self.header = self._view[:_HEADER_SIZE]
        """Flags, by the offsets above."""
        self.varied_address = self._address + VARIED
        self._half = 0
        self._next = 0
        self._free: list[int] = []
        self._lock = allocate_lock()

    def turn(self, half: int) -> None:
        """Take the slots of a half, 0 or 1, in which nothing is noted."""
        self._half = half
        self._next = 0
        self._free = []

    def take(self, listener: int) -> Slot | None:
        """Return a slot for calls of a listener, by its number; None where there is none left."""
        with self._lock:
            if self._free:
                offset = self._free.pop()
            elif self._next < SLOTS:
                offset = _HEADER_SIZE + self._half * _HALF + self._next * _SIZE
                self._next += 1
                _NUMBER.pack_into(self.header, _USED + _NUMBER.size * self._half, self._next)
            else:
                return None
        memory = self._view[offset : offset + _SIZE]
        memory[:_CALL_SIZE] = NOTHING
        _NUMBER.pack_into(memory, _LISTENER, listener)
        return Slot(memory, offset, self._address + offset)

    def give(self, slot: Slot) -> None:
        """Give a slot back, in which there is no call any more."""
        slot.call[:] = NOTHING
        self._free.append(slot.offset)

    def collect(self, half: int) -> list[Found]:
        """Return the calls that are noted in a half, and leave none there."""
        (used,) = _NUMBER.unpack_from(self.header, _USED + _NUMBER.size * half)
        begin = _HEADER_SIZE + half * _HALF
        found = []
        for offset in range(begin, begin + min(used, SLOTS) * _SIZE, _SIZE):
            memory = bytes(self._view[offset : offset + _SIZE])
            if not memory.startswith(NO_CALL):
                found.append(Found(memory))
                self._view[offset : offset + _CALL_SIZE] = NOTHING
        return found
