"""Calls that wait for something: one thread waits for all of them, and holds up no other call."""

from __future__ import annotations

import errno
import select
import time
from _thread import allocate_lock, start_new_thread

from runrootless.emulation.call import Call, Waits, failure
from runrootless.linux import eventfd
from runrootless.linux.processes import pending_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable

    from runrootless.agent.ledger import Ledger, Slot
    from runrootless.agent.views import Views

_LIMIT = 256
"""How many calls may wait at once: each holds a descriptor of the agent's."""

_INTERVAL = 0.05
"""After how many seconds the callers are looked at again: no event tells of their signals."""


class _Waiter:
    """A call that waits, and where it is noted.

    ``signals`` are those of its process that there were at the last look. ``taken`` is whether
    a thread works on it.
    """

    __slots__ = ("call", "signals", "slot", "taken", "waits")

    def __init__(self, call: Call, waits: Waits, slot: Slot) -> None:
        self.call = call
        self.waits = waits
        self.slot = slot
        self.signals = 0
        self.taken = False

    def is_interrupted(self) -> bool:
        """Return whether a signal is there for the caller. Raises OSError where it is gone.

        One for the whole process may be taken by another thread, which takes no time.
        """
        own, shared = pending_signals(self.call.pid)
        lasting = self.signals & shared
        self.signals = shared
        return bool(own or lasting)


class Runner:
    """A thread that carries calls on: the one it works on now, and at the last look."""

    __slots__ = ("at", "seen")

    def __init__(self) -> None:
        self.at: _Waiter | None = None
        self.seen: _Waiter | None = None


class Waiting:
    """The calls of one container that wait, and the threads that wait for them.

    As a rule that is one; where it hangs in a call, another one carries on the others.
    ``finish`` is given a call and what carries it on, which may raise Waits once more; it gives
    the call its answer and raises nothing else. ``watch`` is called whenever a thread is about
    to carry one on.
    """

    def __init__(
        self,
        views: Views,
        ledger: Ledger,
        finish: Callable[[Call, Callable[[], int | None]], None],
        watch: Callable[[], None],
    ) -> None:
        self._lock = allocate_lock()
        self._views = views
        self._ledger = ledger
        self._finish = finish
        self._watch = watch
        self._waiters: dict[int, _Waiter] = {}
        self._next_look = 0.0
        self._events: select.epoll | None = None
        self._woken = -1
        self.runners: list[Runner] = []
        """The threads, for the watch."""

    def add(self, call: Call, waits: Waits, slot: Slot, listener: int) -> None:
        """Have a call answered once it is time.

        It is noted in ``slot``, which stays the thread's that has begun with it; ``listener``
        is the number of its listener. Raises OSError: ENOMEM where too many wait, and what
        epoll_create1(2) says.
        """
        fd = waits.event.fileno()
        own = None
        try:
            with self._lock:
                if len(self._waiters) >= _LIMIT:
                    self._sweep()
                own = self._ledger.take(listener)
                if len(self._waiters) >= _LIMIT or own is None:
                    raise failure(errno.ENOMEM)
                own.note(bytes(slot.call))
                if call.begun is not None:
                    call.begun = own.begun
                events = self._events or self._start()
                self._waiters[fd] = _Waiter(call, waits, own)
                events.register(fd, select.EPOLLIN)
        except BaseException:
            self._waiters.pop(fd, None)
            if own is not None:
                self._ledger.give(own)
            waits.event.close()
            raise
        eventfd.add(self._woken)

    def take_over(self) -> None:
        """Start one more thread, since those that there are hang. Nothing happens without any."""
        with self._lock:
            if self._events is not None and not self._events.closed:
                self._start_thread(self._events)

    def _sweep(self) -> None:
        for fd, waiter in list(self._waiters.items()):
            if not waiter.taken and not waiter.call.is_valid():
                self._drop(fd, waiter)

    def _start(self) -> select.epoll:
        if self._woken < 0:
            self._woken = eventfd.eventfd()
        events = select.epoll()
        events.register(self._woken, select.EPOLLIN)
        if not self._start_thread(events):
            events.close()
            raise failure(errno.ENOMEM)
        self._events = events
        return events

    def _start_thread(self, events: select.epoll) -> bool:
        runner = Runner()
        is_apart = allocate_lock()
        is_apart.acquire()
        failures: list[OSError] = []
        try:
            start_new_thread(self._run, (events, runner, is_apart, failures))
        except RuntimeError:
            return False
        # Until then it would follow this thread wherever that goes.
        is_apart.acquire()
        if failures:
            return False
        self.runners.append(runner)
        return True

    def _run(
        self, events: select.epoll, runner: Runner, is_apart: LockType, failures: list[OSError]
    ) -> None:
        try:
            self._views.of_this_thread()
        except OSError as error:
            failures.append(error)
            return
        finally:
            is_apart.release()
        while True:
            for fd, _ in events.poll(self._timeout()):
                if fd == self._woken:
                    try:
                        eventfd.take(fd)
                    except BlockingIOError:
                        # Another thread has.
                        pass
                else:
                    self._retry(fd, runner)
            self._look(runner)
            if self._lets_go(runner):
                return

    def _lets_go(self, runner: Runner) -> bool:
        """Return whether another thread has no call, so that this one is not needed any more."""
        if len(self.runners) < 2:
            return False
        with self._lock:
            if all(one.at is not None for one in self.runners if one is not runner):
                return False
            self.runners.remove(runner)
        return True

    def _timeout(self) -> float:
        """Return the seconds until something is to be done, -1 where nothing is."""
        with self._lock:
            waiters = [waiter for waiter in self._waiters.values() if not waiter.taken]
            if not waiters:
                return -1
            times = [waiter.waits.deadline for waiter in waiters]
        first = min([self._next_look, *(time for time in times if time is not None)])
        return max(0.0, first - time.monotonic())

    def _take(self, fd: int, runner: Runner) -> _Waiter | None:
        """Take a call that no other thread works on, and return it."""
        with self._lock:
            waiter = self._waiters.get(fd)
            if waiter is None or waiter.taken:
                return None
            waiter.taken = True
            runner.at = waiter
        return waiter

    def _leave(self, fd: int, runner: Runner, is_over: bool) -> None:
        with self._lock:
            waiter, runner.at = runner.at, None
            if waiter is None:
                return
            waiter.taken = False
            if is_over:
                self._drop(fd, waiter)

    def _retry(self, fd: int, runner: Runner) -> None:
        waiter = self._take(fd, runner)
        if waiter is None:
            return
        is_over = True
        try:
            waiter.waits.event.poll(0)
            if waiter.call.is_valid():
                self._watch()
                self._finish(waiter.call, waiter.waits.retry)
        except Waits:
            is_over = False
        finally:
            self._leave(fd, runner, is_over)

    def _look(self, runner: Runner) -> None:
        """Carry on the calls whose time is over, and let go of those that are interrupted."""
        now = time.monotonic()
        is_time = now >= self._next_look
        if is_time:
            self._next_look = now + _INTERVAL
        with self._lock:
            waiters = list(self._waiters.items())
        for fd, waiter in waiters:
            deadline = waiter.waits.deadline
            if is_time:
                self._look_at(fd, runner)
            if deadline is not None and deadline <= now:
                self._retry(fd, runner)

    def _look_at(self, fd: int, runner: Runner) -> None:
        waiter = self._take(fd, runner)
        if waiter is None:
            return
        is_over = True
        try:
            is_over = not waiter.call.is_valid()
            if not is_over and waiter.is_interrupted():
                # The kernel knows what is to become of the call.
                self._finish(waiter.call, lambda: None)
                is_over = True
        except OSError:
            is_over = True
        finally:
            self._leave(fd, runner, is_over)

    def _drop(self, fd: int, waiter: _Waiter) -> None:
        del self._waiters[fd]
        waiter.waits.event.close()
        self._ledger.give(waiter.slot)
