"""The loop in C that receives calls and answers the common ones: ``native/loop.c``.

The library is called without the interpreter's lock, so threads do not wait for one another.
"""

from __future__ import annotations

import os
import struct

from runrootless.linux import eventfd
from runrootless.linux.files import STAT_SIZE
from runrootless.linux.libc import CDLL, address, c_void_p, silent_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.agent.ledger import Ledger, Slot
    from runrootless.emulation.apart import Apart
    from runrootless.emulation.processes.status_files import Readers
    from runrootless.emulation.programs import Programs

TURN, LEFT, _LOOK, ENDED = range(4)
"""What ``serve`` returns: the flag is set; a call is in the slot, for Python; all have ended."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LIBRARY = CDLL(f"{_PACKAGE}/native/loop.so")
_serve = silent_function("serve", _LIBRARY)
_fall_asleep = silent_function("fall_asleep", _LIBRARY)

# struct loop and struct activity.
_LOOP = struct.Struct("@PPPPPPPiIIiIQ")
_FILE_OFFSET = struct.calcsize("@PPPPPPPiII")
_LOOKED = struct.Struct("=iI")
CALLERS = struct.Struct("=QQ")
CALLERS_SIZE = 216
_ACTIVITY = struct.Struct("@B3xi")
_POLLS = 1
_ROOT_ONLY = 2


class Flag:
    """A byte that the loop reads: whether a thread is to return to Python after each call."""

    __slots__ = ("_memory", "address")

    def __init__(self) -> None:
        self._memory = bytearray(1)
        self.address = address(self._memory)

    def __bool__(self) -> bool:
        return bool(self._memory[0])

    def set(self, value: bool) -> None:
        """Set it or take it back."""
        self._memory[0] = value


class Activity:
    """Whether the main thread watches the calls: if not, a thread that takes a call wakes it.

    ``wakes`` becomes readable then. Reading the clock for each call would cost more.
    """

    def __init__(self) -> None:
        self.wakes = eventfd.eventfd()
        self._memory = bytearray(_ACTIVITY.pack(False, self.wakes))
        self.address = address(self._memory)
        self._pointer = c_void_p(self.address)

    @property
    def asleep(self) -> bool:
        """Whether the main thread does not watch."""
        return bool(self._memory[0])

    def fall_asleep(self) -> None:
        """Say that it does not watch any more. Calls that have begun by now are seen afterwards."""
        _fall_asleep(self._pointer)

    def stay_awake(self) -> None:
        """Say that it watches."""
        self._memory[0] = False

    def wake(self) -> None:
        """Wake the main thread: there is a call to watch."""
        if self.asleep:
            self._memory[0] = False
            eventfd.add(self.wakes)


class Loop:
    """The loop of one thread.

    ``unusual`` makes it return. It leaves to Python the calls of the threads in ``readers`` and
    about the files in ``apart``, and lets ``programs`` be executed. With ``polls`` it asks poll(2)
    before it receives. It notes each call in the ``slot``. Calls about files it leaves to Python
    if views vary, and with ``root_only`` if the caller is not root. ``look`` is given an open file
    that does not carry its record, and what stat(2) says of it: it changes that and returns
    whether it has.
    """

    def __init__(
        self,
        listener: int,
        slot: Slot,
        ledger: Ledger,
        unusual: Flag,
        activity: Activity,
        readers: Readers,
        apart: Apart,
        programs: Programs,
        polls: bool,
        root_only: bool,
        look: Callable[[int, bytearray], bool],
    ) -> None:
        self._shared = ledger, unusual, activity, readers, apart, programs
        self._look = look
        self._memory = bytearray(
            _LOOP.pack(
                slot.address,
                ledger.varied_address,
                unusual.address,
                activity.address,
                readers.address,
                apart.address,
                programs.address,
                listener,
                len(slot.call),
                _POLLS * polls | _ROOT_ONLY * root_only,
                -1,
                0,
                0,
            )
            + bytes(STAT_SIZE + CALLERS_SIZE)
        )
        self._status = memoryview(self._memory)[_LOOP.size :][:STAT_SIZE]
        self._pointer = c_void_p(address(self._memory))

    def counted(self) -> tuple[int, int]:
        """Return how many calls there were so far, and how many crossed those of other threads."""
        calls, crossings = CALLERS.unpack_from(self._memory, _LOOP.size + STAT_SIZE)
        return calls, crossings

    def serve(self) -> int:
        """Answer calls until there is something to do that only Python can; return what."""
        result: int = _serve(self._pointer)
        while result == _LOOK:
            file, _ = _LOOKED.unpack_from(self._memory, _FILE_OFFSET)
            status = bytearray(self._status)
            try:
                is_changed = self._look(file, status)
            except Exception:
                # The handler of the call will meet the same error.
                os.close(file)
                _LOOKED.pack_into(self._memory, _FILE_OFFSET, -1, 0)
                return LEFT
            self._status[:] = status
            _LOOKED.pack_into(self._memory, _FILE_OFFSET, file, is_changed)
            result = _serve(self._pointer)
        return result
