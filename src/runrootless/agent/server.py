"""The agent's loop: answers notifications until nobody is left to raise any."""

from __future__ import annotations

import _socket
import errno
import os
import select

from runrootless.agent.listener import Connection, Handover
from runrootless.agent.log import Log
from runrootless.agent.views import Views
from runrootless.emulation.call import Call
from runrootless.emulation.emulator import Emulator
from runrootless.linux import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.emulation.emulator import Handler

_CONNECTION_LIMIT = 64
_X32_BIT = 0x40000000
_UNPACK = seccomp.NOTIFICATION.unpack
_PACK = seccomp.RESPONSE.pack


class Server:
    """Serves the listeners of one container.

    ``socket`` is the listening socket and ``runtime`` a pidfd of the OCI runtime's process
    that was started together with the agent. ``before_joining`` is called while paths still
    lead where the host has them, and what it returns when they lead into the container.
    """

    def __init__(
        self,
        socket: _socket.socket,
        runtime: int,
        views: Views,
        emulator: Emulator,
        before_joining: Callable[[], Callable[[], None]],
        log: Log,
    ) -> None:
        self._socket = socket
        self._runtime = runtime
        self._views = views
        self._emulator = emulator
        self._before_joining = before_joining
        self._log = log
        self._poll = select.poll()
        self._connections: dict[int, Connection] = {}
        self._listeners: set[int] = set()
        self._handlers = emulator.handlers()
        self._joined = False
        self._after_joining: Callable[[], None] | None = None

    def serve(self) -> None:
        """Return when the runtime's process has ended and no process is under the filter."""
        self._socket.setblocking(False)
        self._poll.register(self._socket.fileno(), select.POLLIN)
        self._poll.register(self._runtime, select.POLLIN)
        runtime_lives = True
        poll = self._poll.poll
        listeners = self._listeners
        while runtime_lives or listeners or self._connections:
            for fd, events in poll():
                if fd in listeners:
                    if events & select.POLLIN:
                        self._answer(fd)
                    else:
                        self._drop(fd)
                elif fd == self._runtime:
                    self._poll.unregister(fd)
                    runtime_lives = False
                elif fd == self._socket.fileno():
                    self._accept()
                else:
                    self._receive(fd)

    def _answer(self, listener: int) -> None:
        try:
            data = seccomp.receive(listener)
        except OSError:
            # The caller was killed before its notification could be read.
            return
        identifier, pid, _, number, architecture, _, *arguments = _UNPACK(data)
        handler = self._handlers.get((architecture, number))
        value: int | None = None
        if handler is not None:
            call = Call(pid, arguments, listener, data[:8])
            try:
                if self._views.varied:
                    value = self._handle_in_its_view(handler, call)
                else:
                    value = handler(call)
            except OSError as error:
                value = -(error.errno or errno.EIO)
            except Exception as error:
                self._log.exception(f"call {number} of process {pid}", error)
                value = -errno.EIO
        elif number & _X32_BIT:
            # Programs of the x32 ABI see their calls fail, rather than a half-emulated system.
            value = -errno.ENOSYS
        if value is None:
            response = _PACK(identifier, 0, 0, seccomp.FLAG_CONTINUE)
        elif value == Call.ANSWERED:
            return
        elif value < 0:
            response = _PACK(identifier, 0, value, 0)
        else:
            response = _PACK(identifier, value, 0, 0)
        try:
            seccomp.send(listener, response)
        except OSError:
            # Interrupted by a signal, in which case the call is repeated, or killed.
            pass

    def _handle_in_its_view(self, handler: Handler, call: Call) -> int | None:
        if not self._views.enter(call.pid):
            return handler(call)
        try:
            return handler(call)
        finally:
            self._views.leave()

    def _accept(self) -> None:
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        connection = Connection(fd)
        if connection.peer_uid() != os.geteuid() or len(self._connections) >= _CONNECTION_LIMIT:
            connection.close()
            return
        if self._after_joining is None:
            # While the runtime still writes its message.
            self._after_joining = self._before_joining()
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
        if self._after_joining is not None:
            self._after_joining()
        self._emulator.joined()
        self._log.debug(f"joined the namespaces of process {pid}")

    def _listen(self, listener: int) -> None:
        try:
            seccomp.set_flags(listener, seccomp.FD_SYNC_WAKE_UP)
        except OSError:
            # Before Linux 6.6: slower, and right all the same.
            pass
        self._listeners.add(listener)
        self._poll.register(listener, select.POLLIN)

    def _drop(self, listener: int) -> None:
        self._poll.unregister(listener)
        self._listeners.discard(listener)
        os.close(listener)
