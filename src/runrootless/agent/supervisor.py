"""The supervisor: the process that stays, holds the listeners and starts workers.

It reads nothing that the container says, so there is little that could end it. A worker may
end at any time, for whatever reason; the calls that it had in hand are in the ledger then.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import time

from runrootless.agent import control
from runrootless.agent.confinement import confine_supervisor
from runrootless.agent.connections import Connections
from runrootless.agent.furnishing import furnish
from runrootless.agent.ledger import CROWDED, HANGING, SERVING, Found, Ledger
from runrootless.agent.listener import Connection, Handover
from runrootless.agent.log import Log
from runrootless.agent.views import Views
from runrootless.agent.worker import Worker
from runrootless.containers import background
from runrootless.emulation.emulator import Emulator
from runrootless.emulation.repetition import Repetition
from runrootless.errors import Error
from runrootless.linux import seccomp
from runrootless.linux.processes import has_ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

_ATTEMPTS = 16
"""With how many workers a call may end before it fails: it may be what ends them."""

_PATIENCE = 64
_LONGEST_PAUSE = 1.0
_LONG = 1.0
# Seconds: how often it is looked whether a worker, of which threads hang, has ended.
_REMAINS_INTERVAL = 0.1
_SIGKILL = 9


class _Running:
    """A worker: its process, the end of the socket to it, and what tells of its end.

    ``half`` is the one of the ledger that it uses.
    """

    __slots__ = ("began", "half", "pid", "pidfd", "socket")

    def __init__(self, pid: int, pidfd: int, socket: _socket.socket, half: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.socket = socket
        self.half = half
        self.began = time.monotonic()


class Supervisor:
    """Supervises the workers of one container.

    ``socket`` is the listening socket and ``runtime`` a pidfd of the OCI runtime's process
    that was started together with the agent, ``own`` its process ID. ``after_joining`` is called
    in each worker when paths lead into the container. ``kept`` are the descriptors that a worker
    needs besides; ``alone`` and ``unheard`` are a worker's, and ``unheard`` is called here too.
    ``devices`` are made before the first program begins, as ``bundle.devices`` has them.
    """

    def __init__(
        self,
        socket: _socket.socket,
        runtime: int,
        own: int,
        views: Views,
        emulator: Emulator,
        ledger: Ledger,
        after_joining: Callable[[], None],
        kept: list[int],
        alone: Callable[[], None],
        unheard: Callable[[], None],
        log: Log,
        devices: Sequence[Mapping[str, Any]],
    ) -> None:
        self._socket = socket
        self._runtime = runtime
        self._views = views
        self._emulator = emulator
        self._ledger = ledger
        self._after_joining = after_joining
        self._kept = kept
        self._alone = alone
        self._unheard = unheard
        self._log = log
        self._devices = devices
        self._poll = select.poll()
        self._connections = Connections(socket, self._poll, own)
        self._listeners: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        self._last_number = 0
        self._repetition = Repetition()
        self._found = False
        self._worker: _Running | None = None
        self._started = 0
        self._left: list[Found] = []
        self._remains: list[_Running] = []
        self._deaths = 0
        self._has_served = False
        self._start_at: float | None = None

    def expect(self, connection: Connection) -> None:
        """Take listeners from a connection that is there already."""
        self._connections.keep(connection)

    def run(self) -> None:
        """Return when the runtime's process has ended and no process is under the filter."""
        self._poll.register(self._runtime, select.POLLIN)
        runtime_lives = True
        while runtime_lives or self._listeners or self._connections:
            for fd, _ in self._poll.poll(self._timeout()):
                if fd == self._runtime:
                    self._poll.unregister(fd)
                    runtime_lives = False
                    self._unheard()
                    if self._worker is not None:
                        control.send(self._worker.socket, control.RUNTIME_ENDED)
                elif fd == self._socket.fileno():
                    self._connections.accept()
                elif (connection := self._connections.get(fd)) is not None:
                    self._receive(fd, connection)
                elif fd in self._numbers:
                    self._forget(fd)
                elif self._worker is not None and (
                    fd == self._worker.pidfd
                    or (fd == self._worker.socket.fileno() and not self._hears(self._worker))
                ):
                    self._bury(self._worker)
            if self._worker and self._ledger.header[HANGING] and has_ended(self._worker.pid):
                self._bury(self._worker)
            self._look_at_remains()
            self._connections.make_room()
            if self._start_at is not None and time.monotonic() >= self._start_at:
                self._start()
        if self._worker is not None:
            self._end(self._worker)

    def _timeout(self) -> float | None:
        """Return after how many milliseconds there is something to do at the latest."""
        times = []
        if self._remains or self._ledger.header[HANGING]:
            times.append(_REMAINS_INTERVAL)
        room = self._connections.timeout()
        if room is not None:
            times.append(room)
        if self._start_at is not None:
            times.append(max(0.0, self._start_at - time.monotonic()))
        return 1000 * min(times) + 1 if times else None

    # Listeners.

    def _receive(self, fd: int, connection: Connection) -> None:
        try:
            handover = connection.receive()
            if handover is not None:
                self._take(handover)
                connection.thank()
                if connection.lasts:
                    return
        except BlockingIOError:
            return
        except Error as error:
            self._log.error(str(error))
            connection.refuse(str(error))
        except Exception as error:
            self._log.exception("handing over a listener", error)
        self._connections.close(fd)

    def _take(self, handover: Handover) -> None:
        listener = handover.fd
        try:
            if not self._found:
                self._kept += self._views.find(handover.pid)
                self._emulator.met(handover.pid)
                if self._devices:
                    furnish(
                        self._devices, self._views, self._emulator, self._after_joining, self._log
                    )
                self._found = True
            self._emulator.started(handover.pid)
            self._last_number += 1
            number = self._last_number
            self._numbers[listener] = number
            self._listeners[number] = listener
            if self._started == 0:
                self._start()
                confine_supervisor(self._views.is_of_this_user_namespace())
            elif self._worker is not None:
                data = control.NUMBER.pack(number) + control.NUMBER.pack(handover.pid)
                control.send(self._worker.socket, control.LISTENER, data, [listener])
            elif self._start_at is None:
                self._start()
            # Without events that are asked for it tells just that no process is left.
            self._poll.register(listener, 0)
        except BaseException:
            # Then the calls of the process fail, rather than wait for an answer for ever.
            self._listeners.pop(self._numbers.pop(listener, 0), None)
            os.close(listener)
            raise

    def _forget(self, listener: int) -> None:
        """Let go of a listener that nobody is left to raise notifications on."""
        self._poll.unregister(listener)
        del self._listeners[self._numbers.pop(listener)]
        os.close(listener)

    # Workers.

    def _start(self) -> None:
        """Start a worker; try again later if there can be none."""
        self._start_at = None
        half = self._started % 2
        # Of one that is not quite dead: what is still in there hangs, and has been left.
        self._note(self._ledger.collect(half))
        self._left = self._refuse(self._left)
        self._ledger.header[SERVING] = self._ledger.header[HANGING] = 0
        try:
            ours, theirs = control.pair()
        except OSError as error:
            self._put_off(f"no worker can be started: {error.strerror}")
            return
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            self._put_off(f"no worker can be started: {error.strerror}")
            return
        if pid == 0:
            self._become_worker(theirs, half)
        theirs.close()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            # It ends with the other end of its socket; what it has in hand is found later.
            ours.close()
            os.kill(pid, _SIGKILL)
            os.waitpid(pid, 0)
            self._note(self._ledger.collect(half))
            self._put_off(f"no worker can be watched: {error.strerror}")
            return
        self._worker = _Running(pid, pidfd, ours, half)
        self._started += 1
        self._poll.register(self._worker.pidfd, select.POLLIN)
        self._poll.register(ours.fileno(), select.POLLIN)

    def _become_worker(self, socket: _socket.socket, half: int) -> None:
        try:
            listeners = list(self._listeners.values())
            background.close_others([socket.fileno(), *self._kept, *listeners])
            self._ledger.turn(half)
            Worker(
                socket,
                self._views,
                self._emulator,
                self._ledger,
                self._log,
                self._after_joining,
                self._alone,
                self._unheard,
            ).run(self._listeners, self._left, self._started == 0)
        except BaseException as error:
            self._log.exception("starting to answer calls", error)
        finally:
            os._exit(0)

    def _bury(self, worker: _Running) -> None:
        """Deal with the end of a worker: its calls in hand, and the next worker."""
        self._poll.unregister(worker.pidfd)
        self._poll.unregister(worker.socket.fileno())
        self._kill(worker)
        os.close(worker.pidfd)
        worker.socket.close()
        self._worker = None
        # Whatever hangs in it does so until the kernel lets go of it.
        self._remains.append(worker)
        before = {found.key() for found in self._left}
        self._note(self._ledger.collect(worker.half))
        self._look_at_remains()
        lived = time.monotonic() - worker.began
        after = {found.key() for found in self._left}
        advanced = self._ledger.header[SERVING] and not (after and after <= before)
        self._deaths = 0 if advanced or lived >= _LONG else self._deaths + 1
        self._has_served = self._has_served or bool(self._ledger.header[SERVING])
        if self._deaths > _PATIENCE and not self._has_served:
            self._give_up()
        elif self._deaths > _PATIENCE:
            self._put_off("workers end as soon as they are started")
        else:
            self._log.debug(f"a worker has ended after {lived:.3f} s")
            self._start()

    def _put_off(self, reason: str) -> None:
        """Start the next worker some time later, the longer the more have ended at once."""
        self._deaths += 1
        pause = min(_LONGEST_PAUSE, 0.002 * 2 ** min(self._deaths - _PATIENCE, 16))
        self._start_at = time.monotonic() + max(pause, 0.002)
        if self._deaths == _PATIENCE + 2:
            self._log.error(f"{reason}: calls wait, and it is tried again and again")

    def _give_up(self) -> None:
        """Let all calls fail: this container has never been served, and will not be."""
        self._log.error("no worker can serve the container: its system calls fail")
        for listener in list(self._numbers):
            self._forget(listener)
        self._left.clear()

    def _note(self, calls: list[Found]) -> None:
        """Add calls to those that have been left, each of which may be there already."""
        known = {found.key(): found for found in self._left}
        for found in calls:
            same = known.get(found.key())
            if same is None:
                found.attempts += 1
                self._left.append(found)
            else:
                same.attempts += 1
                same.begun = same.begun or found.begun
                same.stuck = same.stuck or found.stuck

    def _refuse(self, calls: list[Found]) -> list[Found]:
        """Answer the calls that cannot be done again; return those that still wait otherwise."""
        crowded = self._ledger.header[CROWDED]
        self._ledger.header[CROWDED] = 0
        rest = []
        for found in calls:
            listener = self._listeners.get(found.listener, -1)
            identifier = found.notification[seccomp.IDENTIFIER]
            if listener < 0 or not seccomp.is_valid(listener, identifier):
                continue
            if (
                (found.stuck and crowded)
                or found.attempts > _ATTEMPTS
                or (found.begun and not self._repetition.is_harmless(found.notification))
            ):
                response = seccomp.RESPONSE.pack(identifier, 0, -errno.EIO, 0)
                try:
                    seccomp.send(listener, response)
                except OSError:
                    # Its caller has gone.
                    pass
            else:
                rest.append(found)
        return rest

    def _look_at_remains(self) -> None:
        """Take leave of the workers of which nothing is left, and of what they still received."""
        for worker in list(self._remains):
            try:
                if os.waitpid(worker.pid, os.WNOHANG)[0] == 0:
                    continue
            except ChildProcessError:
                pass
            self._remains.remove(worker)
            if self._worker is None:
                self._note(self._ledger.collect(worker.half))
            elif worker.half != self._worker.half:
                late, self._left = self._left, []
                self._note(self._ledger.collect(worker.half))
                for found in self._refuse(self._left):
                    data = control.NUMBER.pack(found.listener) + found.packed()
                    control.send(self._worker.socket, control.CALLS, data)
                self._left += late

    def _hears(self, worker: _Running) -> bool:
        """Return whether a worker, of which there is something to hear, has not ended."""
        try:
            return bool(control.receive(worker.socket)[0])
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _kill(self, worker: _Running) -> None:
        try:
            os.kill(worker.pid, _SIGKILL)
        except ProcessLookupError:
            pass

    def _end(self, worker: _Running) -> None:
        self._kill(worker)
        poll = select.poll()
        poll.register(worker.pidfd, select.POLLIN)
        poll.poll(1000)
