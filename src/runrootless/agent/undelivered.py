"""Answers that could not be delivered: the caller was interrupted after everything was done.

This happens where the filter does not make calls wait killably, before Linux 5.19. Most calls
need nothing: their handlers undo what they have done, or do the same again (``repetition``).
Of the others the answer is remembered for the thread's next call, if that is the same one.
"""

from __future__ import annotations

from runrootless.agent.ledger import INTERRUPTED
from runrootless.emulation.repetition import REMEMBERED, keys_of
from runrootless.linux import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from runrootless.emulation.call import Call
    from runrootless.emulation.interrupted import Interrupted


class Undelivered:
    """Remembers answers; any thread may call this.

    The flag INTERRUPTED in ``header``, the ledger's, says whether anything is remembered: then
    each call is to be asked about.
    """

    def __init__(self, interrupted: Interrupted, header: memoryview) -> None:
        self._interrupted = interrupted
        # Not before it is needed: a worker is to begin soon.
        self._remembered: Container[bytes] | None = None
        header[INTERRUPTED] = 0
        interrupted.flag = header[INTERRUPTED : INTERRUPTED + 1]

    def note(self, call: Call, value: int | None) -> None:
        """Take note that the answer ``value`` to a call could not be delivered."""
        if value is None or value < 0:
            return
        if self._remembered is None:
            self._remembered = keys_of(REMEMBERED)
        _, key = seccomp.KEY.unpack(call.notification)
        if key in self._remembered:
            self._interrupted.keep(call, value)

    def answer(self, call: Call) -> int | None:
        """Return the answer that is remembered of a call, None where there is none.

        What else is remembered of it, its handler finds in the call. All else of its thread is
        forgotten.
        """
        found = self._interrupted.take(call)
        if isinstance(found, int):
            return found
        call.remembered = found
        return None
