"""Where the kernel wakes the agent and its callers: SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6.

With the flag a call passes the processor on to the agent, and its answer passes it back. That is
fastest for one thread that calls and calls. But threads that compute, and call by turns now and
then, get to one processor by it, while others are idle: without it, the kernel wakes them where
there is room.
"""

from __future__ import annotations

from runrootless.linux import seccomp

MANY = 500
"""As many calls from a look at them to the next are fastest with the flag, whoever makes them."""

FEW = 1 / 16
"""Where fewer of them cross those of other threads, one thread waits for another."""

CALM = 10
"""After so many looks at which none wanted otherwise the flag is set again."""


class WakeUp:
    """The flag of one listener, which is set first. Before Linux 6.6 this does nothing."""

    def __init__(self, listener: int) -> None:
        self._listener = listener
        self._seen = 0, 0
        self._calm = CALM
        self.is_set = False
        self._set(True)

    def adapt(self, calls: int, crossings: int) -> None:
        """Set the flag or take it back, by what the loops of the listener have counted so far."""
        before, self._seen = self._seen, (calls, crossings)
        # Less where a thread has left the crew.
        calls, crossings = max(0, calls - before[0]), max(0, crossings - before[1])
        if calls >= MANY:
            self._calm = CALM
        elif crossings > calls * FEW:
            self._calm = 0
        else:
            self._calm += 1
        self._set(self._calm >= CALM)

    def _set(self, value: bool) -> None:
        if value != self.is_set:
            self.is_set = value
            try:
                seccomp.set_flags(self._listener, seccomp.FD_SYNC_WAKE_UP if value else 0)
            except OSError:
                # Before Linux 6.6: slower, but correct.
                pass
