"""The worker: the process that joins a container and answers its calls, in threads."""

from __future__ import annotations

import _socket
import os
import select
import time

from runrootless.agent import control
from runrootless.agent.answers import Answers
from runrootless.agent.confinement import confine_worker, use_permitted
from runrootless.agent.crew import Crew
from runrootless.agent.ledger import CROWDED, HANGING, SERVING, Ledger
from runrootless.agent.log import Log
from runrootless.agent.loop import Activity
from runrootless.agent.views import Views
from runrootless.agent.watch import CrowdedError, Watch
from runrootless.emulation.emulator import Emulator
from runrootless.linux import eventfd
from runrootless.linux.process import set_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.agent.ledger import Found

PROCESS_NAME = "runrootless-agt"
"""The worker's name in ps(1): the kernel keeps 15 bytes."""


class Worker:
    """Serves the listeners of one container, in a process of its own.

    ``socket`` is its end of the socket pair that ``control`` describes. ``after_joining`` is
    called when paths lead into the container. ``alone`` is called if the supervisor has ended,
    and ``unheard`` when nobody waits for what the runtime prints any more.
    """

    def __init__(
        self,
        socket: _socket.socket,
        views: Views,
        emulator: Emulator,
        ledger: Ledger,
        log: Log,
        after_joining: Callable[[], None],
        alone: Callable[[], None],
        unheard: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._views = views
        self._emulator = emulator
        self._ledger = ledger
        self._log = log
        self._after_joining = after_joining
        self._alone = alone
        self._unheard = unheard
        self._activity = Activity()
        self._answers = Answers(emulator, views, ledger, log, self._activity.wake)
        self._crews: dict[int, Crew] = {}
        self._finished: list[tuple[Crew, BaseException | None]] = []
        self._ended = eventfd.eventfd()
        crews, waiting = self._crews.values(), self._answers.waiting
        self._watch = Watch(self._activity, crews, waiting, self._tell)

    def run(self, listeners: dict[int, int], left: list[Found], is_first: bool) -> None:
        """Serve listeners, by their numbers, until none of them is left and nobody sends others.

        ``left`` are calls that others have left without an answer. What ends this is logged.
        """
        try:
            self._run(listeners, left, is_first)
        except CrowdedError:
            self._ledger.header[CROWDED] = 1
            self._log.error("too many calls hang: they fail with EIO")
        except BaseException as error:
            self._log.exception("answering calls", error)
        try:
            # Threads that hang may keep this process, and this open, for a while.
            self._socket.shutdown(_socket.SHUT_RDWR)
        except OSError:
            pass

    def _run(self, listeners: dict[int, int], left: list[Found], is_first: bool) -> None:
        set_name(PROCESS_NAME)
        use_permitted()
        self._views.join()
        confine_worker()
        self._after_joining()
        self._emulator.joined(is_first)
        for number, listener in listeners.items():
            calls = [found.packed() for found in left if found.listener == number]
            self._listen(number, listener, calls)
        self._ledger.header[SERVING] = 1
        self._log.debug("joined the namespaces of the container")
        self._serve()

    def _serve(self) -> None:
        poll = select.poll()
        emulator, activity = self._emulator, self._activity
        for fd in (self._socket.fileno(), self._ended, emulator.wakes, activity.wakes):
            poll.register(fd, select.POLLIN)
        is_supervised = True
        tidy_at: float | None = None
        while is_supervised or self._crews:
            until = self._watch.look()
            if tidy_at is not None:
                rest = max(0.0, tidy_at - time.monotonic())
                until = rest if until is None else min(until, rest)
            ready = {fd for fd, _ in poll.poll(None if until is None else 1000 * until + 1)}
            if activity.wakes in ready:
                eventfd.take(activity.wakes)
            if self._ended in ready:
                self._reap()
            if emulator.wakes in ready or (tidy_at is not None and tidy_at <= time.monotonic()):
                milliseconds = emulator.tidy()
                tidy_at = None
                if milliseconds is not None:
                    tidy_at = time.monotonic() + milliseconds / 1000
            if self._socket.fileno() in ready and not self._receive():
                poll.unregister(self._socket.fileno())
                is_supervised = False
                self._alone()

    def _receive(self) -> bool:
        """Do what the supervisor says; return whether there is one."""
        try:
            kind, data, fds = control.receive(self._socket)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if kind == control.LISTENER and fds:
            (number,) = control.NUMBER.unpack_from(data)
            (pid,) = control.NUMBER.unpack_from(data, control.NUMBER.size)
            self._emulator.started(pid)
            self._listen(number, fds[0], [])
        elif kind == control.CALLS:
            (number,) = control.NUMBER.unpack_from(data)
            crew = self._crews.get(number)
            if crew is not None:
                crew.resume([data[control.NUMBER.size :]])
                crew.start(1)
        elif kind == control.RUNTIME_ENDED:
            self._unheard()
        return bool(kind)

    def _tell(self, hangs: bool) -> None:
        self._ledger.header[HANGING] = hangs
        if hangs:
            control.send(self._socket, control.HANGS)

    def _listen(self, number: int, listener: int, left: list[bytes]) -> None:
        crew = Crew(
            listener,
            number,
            self._ledger,
            self._answers,
            self._views,
            self._activity,
            self._log,
            self._finish,
        )
        self._crews[number] = crew
        if left:
            crew.resume(left)
        if not crew.start(1):
            # The calls of its processes fail, rather than wait for an answer for ever.
            self._log.error("there can be no more threads: a process is not emulated")
            del self._crews[number]
            os.close(listener)

    def _finish(self, crew: Crew, error: BaseException | None) -> None:
        self._finished.append((crew, error))
        eventfd.add(self._ended)

    def _reap(self) -> None:
        """Take note of the crews that have ended. Raises what a thread could not deal with."""
        eventfd.take(self._ended)
        while self._finished:
            crew, error = self._finished.pop()
            if error is not None:
                raise error
            if self._crews.pop(crew.number, None) is not None:
                os.close(crew.listener)
