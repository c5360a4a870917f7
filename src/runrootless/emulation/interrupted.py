"""What is remembered of calls that were interrupted after they had their effect.

The kernel makes such a call again, or the program does, which has been told EINTR: the same
thread, from the same place, with the same arguments. So an answer is remembered only for that
thread and that call, only until its next intercepted call, and for some seconds. Where the
filter makes calls wait killably (``SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV``) this is not used.
"""

from __future__ import annotations

import time
from _thread import allocate_lock

from runrootless.linux import seccomp
from runrootless.linux.processes import start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.call import Call

_LIMIT = 256
"""How many threads' calls are remembered: then the oldest is forgotten."""

_LASTS = 10.0
"""For how many seconds at least; a signal handler may take its time."""

_NOTHING = (0.0, b"", b"", None)


class Interrupted:
    """A note on the last call of each of some threads; any thread may use it."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        # By thread, the oldest first: until when; when the thread was started, since another
        # one may get its number; its call; and what is remembered.
        self._kept: dict[int, tuple[float, bytes, bytes, object]] = {}
        self.flag: bytearray | memoryview = bytearray(1)
        """A byte that is 1 as long as anything is remembered: then ``take`` is to be asked."""

    def keep(self, call: Call, what: object) -> None:
        """Remember something of a call, if its thread is still there."""
        try:
            started = start_time(call.pid)
        except OSError:
            return
        with self._lock:
            self._kept.pop(call.pid, None)
            while len(self._kept) >= _LIMIT:
                del self._kept[next(iter(self._kept))]
            until = time.monotonic() + _LASTS
            self._kept[call.pid] = until, started, call.notification[seccomp.DATA], what
            self.flag[0] = 1

    def take(self, call: Call) -> object:
        """Return what is remembered of the same call, None for nothing.

        It is forgotten, as is what is remembered of another call of the thread.
        """
        now = time.monotonic()
        with self._lock:
            _, started, data, what = self._kept.pop(call.pid, _NOTHING)
            for thread in [thread for thread, kept in self._kept.items() if kept[0] < now]:
                del self._kept[thread]
            self.flag[0] = bool(self._kept)
        try:
            if data == call.notification[seccomp.DATA] and started == start_time(call.pid):
                return what
        except OSError:
            # It is gone.
            pass
        return None
