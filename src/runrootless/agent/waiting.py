"""Calls that wait for something: a thread of their own waits, so that nobody else has to."""

from __future__ import annotations

import errno
import os
import select
import time
from _thread import allocate_lock, start_new_thread

from runrootless.emulation.call import Call, Waits, failure
from runrootless.linux.processes import pending_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable

    from runrootless.agent.views import Views

_LIMIT = 256
"""How many calls may wait at once: each holds a descriptor of the agent's."""

_INTERVAL = 0.05
"""After how many seconds the callers are looked at again: no event tells of their signals."""


class _Waiter:
    """A call that waits, and the signals of its process that there were at the last look."""

    __slots__ = ("call", "signals", "waits")

    def __init__(self, call: Call, waits: Waits) -> None:
        self.call = call
        self.waits = waits
        self.signals = 0

    def is_interrupted(self) -> bool:
        """Return whether a signal is there for the caller. Raises OSError where it is gone.

        One for the whole process may be taken by another thread, which takes no time.
        """
        own, shared = pending_signals(self.call.pid)
        lasting = self.signals & shared
        self.signals = shared
        return bool(own or lasting)


class Waiting:
    """The calls of one container that wait, and the thread that waits for them.

    ``lock`` is held by whoever is in the handlers. ``finish`` is given a call and what carries
    it on, which may raise Waits once more; it gives the call its answer and raises nothing
    else.
    """

    def __init__(
        self,
        lock: LockType,
        views: Views,
        finish: Callable[[Call, Callable[[], int | None]], None],
    ) -> None:
        self._lock = lock
        self._views = views
        self._finish = finish
        self._waiters: dict[int, _Waiter] = {}
        self._next_look = 0.0
        self._events: select.epoll | None = None
        self._woken = -1

    def add(self, call: Call, waits: Waits) -> None:
        """Have a call answered once it is time; the lock is held.

        Raises OSError: ENOMEM where too many wait, and what epoll_create1(2) says.
        """
        try:
            if len(self._waiters) >= _LIMIT:
                self._sweep()
            if len(self._waiters) >= _LIMIT:
                raise failure(errno.ENOMEM)
            events = self._events or self._start()
            events.register(waits.event.fileno(), select.EPOLLIN)
        except BaseException:
            waits.event.close()
            raise
        self._waiters[waits.event.fileno()] = _Waiter(call, waits)
        os.eventfd_write(self._woken, 1)

    def _sweep(self) -> None:
        for fd, waiter in list(self._waiters.items()):
            if not waiter.call.is_valid():
                self._drop(fd)

    def _start(self) -> select.epoll:
        if self._woken < 0:
            self._woken = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        events = select.epoll()
        events.register(self._woken, select.EPOLLIN)
        is_apart = allocate_lock()
        is_apart.acquire()
        try:
            start_new_thread(self._run, (events, is_apart))
        except RuntimeError:
            raise failure(errno.ENOMEM) from None
        # Until then it would follow this thread wherever that goes.
        is_apart.acquire()
        if events.closed:
            raise failure(errno.ENOMEM)
        self._events = events
        return events

    def _run(self, events: select.epoll, is_apart: LockType) -> None:
        try:
            self._views.of_this_thread()
        except OSError:
            events.close()
            return
        finally:
            is_apart.release()
        while True:
            for fd, _ in events.poll(self._timeout()):
                if fd == self._woken:
                    os.eventfd_read(fd)
                else:
                    self._retry(fd)
            self._look()

    def _timeout(self) -> float:
        """Return the seconds until something is to be done, -1 where nothing is."""
        with self._lock:
            if not self._waiters:
                return -1
            times = [waiter.waits.deadline for waiter in self._waiters.values()]
        first = min([self._next_look, *(time for time in times if time is not None)])
        return max(0.0, first - time.monotonic())

    def _retry(self, fd: int) -> None:
        with self._lock:
            waiter = self._waiters.get(fd)
            if waiter is None:
                return
            waiter.waits.event.poll(0)
            if waiter.call.is_valid():
                try:
                    self._finish(waiter.call, waiter.waits.retry)
                except Waits:
                    return
            self._drop(fd)

    def _look(self) -> None:
        """Carry on the calls whose time is over, and let go of those that are interrupted."""
        now = time.monotonic()
        is_time = now >= self._next_look
        if is_time:
            self._next_look = now + _INTERVAL
        with self._lock:
            fds = list(self._waiters)
        for fd in fds:
            with self._lock:
                waiter = self._waiters.get(fd)
                if waiter is None:
                    continue
                deadline = waiter.waits.deadline
                if is_time:
                    self._look_at(fd, waiter)
            if deadline is not None and deadline <= now:
                self._retry(fd)

    def _look_at(self, fd: int, waiter: _Waiter) -> None:
        try:
            is_over = not waiter.call.is_valid()
            if not is_over and waiter.is_interrupted():
                # The kernel knows what is to become of the call.
                self._finish(waiter.call, lambda: None)
                is_over = True
        except OSError:
            is_over = True
        if is_over:
            self._drop(fd)

    def _drop(self, fd: int) -> None:
        self._waiters.pop(fd).waits.event.close()
