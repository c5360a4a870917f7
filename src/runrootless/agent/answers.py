"""One notification from dispatch to answer: its handler, the caller's view, the result."""

from __future__ import annotations

import errno

from runrootless.agent.ledger import INTERRUPTED
from runrootless.agent.undelivered import Undelivered
from runrootless.agent.waiting import Waiting
from runrootless.emulation.call import Call, Waits
from runrootless.linux import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.agent.ledger import Ledger, Slot
    from runrootless.agent.log import Log
    from runrootless.agent.views import View, Views
    from runrootless.emulation.emulator import Emulator

_X32_BIT = 0x40000000
_ANSWERED = Call.ANSWERED


class Answers:
    """Answers the calls of one container; any thread may call this.

    ``ledger`` notes the calls that wait, and ``watch`` is called whenever one is carried on.
    """

    def __init__(
        self,
        emulator: Emulator,
        views: Views,
        ledger: Ledger,
        log: Log,
        watch: Callable[[], None],
    ) -> None:
        self._views = views
        self._log = log
        self._handlers = emulator.handlers()
        self.readers = emulator.readers
        """The threads whose calls are to be handled here, all of them."""
        self.apart = emulator.apart
        """The files whose calls are."""
        self.programs = emulator.programs
        """The programs whose execution is not."""
        self.look = emulator.look
        """What finds out about files that do not carry their records."""
        self.root_only = emulator.thorough
        """Whether those of emulated users are as well."""
        self._header = ledger.header
        self.undelivered = Undelivered(emulator.shared.interrupted, ledger.header)
        self.waiting = Waiting(views, ledger, self._finish, watch)

    def handle(
        self, view: View, slot: Slot, number: int, system_call: bytes, call: Call
    ) -> int | None:
        """Return what its handler says to a call, which is noted in a slot.

        ``number`` is that of its listener. Where the call waits, that is Call.WAITS. Raises
        ViewLostError.
        """
        handler = self._handlers.get(system_call)
        if handler is None:
            return _unknown(system_call)
        if self._header[INTERRUPTED]:
            remembered = self.undelivered.answer(call)
            if remembered is not None:
                return remembered
        try:
            return view.handle(handler, call) if self._views.varied else handler(call)
        except OSError as error:
            return -(error.errno or errno.EIO)
        except Waits as waits:
            try:
                self.waiting.add(call, waits, slot, number)
            except OSError as error:
                return -(error.errno or errno.EIO)
            return Call.WAITS
        except Exception as error:
            return self._failed(call, error)

    def _finish(self, call: Call, retry: Callable[[], int | None]) -> None:
        """Carry on a call that has waited, and answer it. Raises Waits if it has to go on."""
        try:
            value = retry()
        except OSError as error:
            value = -(error.errno or errno.EIO)
        except Waits:
            raise
        except Exception as error:
            value = self._failed(call, error)
        if value != _ANSWERED:
            call.answer(value)

    def _failed(self, call: Call, error: Exception) -> int:
        self._log.exception(f"a call of process {call.pid}", error)
        return -errno.EIO


def _unknown(system_call: bytes) -> int | None:
    """Return the answer to a call that is not in the table."""
    number, _ = seccomp.NUMBER.unpack(system_call)
    # Programs of the x32 ABI see their calls fail, rather than a half-emulated system.
    return -errno.ENOSYS if number & _X32_BIT else None
