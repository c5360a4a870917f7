"""The agent's main loop: takes listeners over until nobody is left to raise notifications."""

from __future__ import annotations

import _socket
import os
import select

from runrootless.agent.listener import Connection, Handover
from runrootless.agent.log import Log
from runrootless.agent.views import Views
from runrootless.agent.worker import Workers
from runrootless.emulation.emulator import Emulator
from runrootless.linux import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CONNECTION_LIMIT = 64


class Server:
    """Serves the listeners of one container.

    ``socket`` is the listening socket and ``runtime`` a pidfd of the OCI runtime's process
    that was started together with the agent. ``after_joining`` is called when paths lead into
    the container.
    """

    def __init__(
        self,
        socket: _socket.socket,
        runtime: int,
        views: Views,
        emulator: Emulator,
        after_joining: Callable[[], None],
        log: Log,
    ) -> None:
        self._socket = socket
        self._runtime = runtime
        self._views = views
        self._emulator = emulator
        self._after_joining = after_joining
        self._log = log
        self._poll = select.poll()
        self._connections: dict[int, Connection] = {}
        self._workers = Workers(emulator, views, log)
        self._joined = False

    def serve(self) -> None:
        """Return when the runtime's process has ended and no process is under the filter."""
        self._socket.setblocking(False)
        emulator = self._emulator
        for fd in (self._socket.fileno(), self._runtime, self._workers.ended, emulator.wakes):
            self._poll.register(fd, select.POLLIN)
        runtime_lives = True
        while runtime_lives or self._workers or self._connections:
            for fd, _ in self._poll.poll(emulator.tidy()):
                if fd == self._workers.ended:
                    self._workers.reap()
                elif fd == self._runtime:
                    self._poll.unregister(fd)
                    runtime_lives = False
                elif fd == self._socket.fileno():
                    self._accept()
                elif fd != emulator.wakes:
                    self._receive(fd)

    def _accept(self) -> None:
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        connection = Connection(fd)
        if connection.peer_uid() != os.geteuid() or len(self._connections) >= _CONNECTION_LIMIT:
            connection.close()
            return
        self._connections[fd] = connection
        self._poll.register(fd, select.POLLIN)

    def _receive(self, fd: int) -> None:
        connection = self._connections[fd]
        try:
            handover = connection.receive()
            if handover is None:
                return
            self._take(handover)
        except Exception as error:
            self._log.exception("handing over a listener", error)
        self._poll.unregister(fd)
        connection.close()
        del self._connections[fd]

    def _take(self, handover: Handover) -> None:
        try:
            if not self._joined:
                self._join(handover.pid)
            self._listen(handover.fd)
        except BaseException:
            # Then the calls of the process fail, rather than wait for an answer for ever.
            os.close(handover.fd)
            raise

    def _join(self, pid: int) -> None:
        self._views.join(pid)
        self._joined = True
        self._after_joining()
        self._emulator.joined(pid)
        self._log.debug(f"joined the namespaces of process {pid}")

    def _listen(self, listener: int) -> None:
        try:
            seccomp.set_flags(listener, seccomp.FD_SYNC_WAKE_UP)
        except OSError:
            # Before Linux 6.6: slower, and right all the same.
            pass
        self._workers.start(listener)
