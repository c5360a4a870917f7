"""The connections to the agent's socket, of which launchers hold one each until they have begun.

A container's root may get hold of that of an `exec`, and keep it for ever without a word. So no
more than some are kept, each for a while at least; then the oldest gives way to a new one. Those
of the runtime that was started together with the agent are kept: a container that has been
created may wait for its start as long as it likes.
"""

from __future__ import annotations

import os
import select
import time

from runrootless.agent.listener import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

LIMIT = 64
"""How many there may be of the runtime started together with the agent, and of all others."""

PATIENCE = 10.0
"""Seconds for which one does not give way."""


class _Open:
    __slots__ = ("began", "connection", "peer")

    def __init__(self, connection: Connection, peer: int) -> None:
        self.connection = connection
        self.peer = peer
        self.began = time.monotonic()


class Connections:
    """Accepts them from a listening socket, and tells ``poll`` of them and it.

    ``own`` is the process ID of the runtime that was started together with the agent.
    """

    def __init__(self, socket: _socket.socket, poll: select.poll, own: int) -> None:
        self._socket = socket
        self._poll = poll
        self._own = own
        # By descriptor, the oldest first.
        self._open: dict[int, _Open] = {}
        self._is_full = False
        socket.setblocking(False)
        poll.register(socket.fileno(), select.POLLIN)

    def __len__(self) -> int:
        return len(self._open)

    def get(self, fd: int) -> Connection | None:
        """Return the connection with a descriptor."""
        found = self._open.get(fd)
        return None if found is None else found.connection

    def keep(self, connection: Connection) -> None:
        """Have one that was not accepted here. It does not give way."""
        self._open[connection.fileno()] = _Open(connection, self._own)
        self._poll.register(connection.fileno(), select.POLLIN)

    def accept(self) -> None:
        """Take the next one, if it is one of this user's."""
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        connection = Connection(fd)
        peer, user = connection.peer()
        if user != os.geteuid():
            connection.close()
            return
        if peer == self._own:
            if sum(one.peer == peer for one in self._open.values()) >= LIMIT:
                connection.close()
                return
        else:
            # A command makes one: the other was of one that has ended.
            for before in [fd for fd, one in self._open.items() if one.peer == peer]:
                self.close(before)
        self._open[fd] = _Open(connection, peer)
        self._poll.register(fd, select.POLLIN)
        self.make_room()

    def close(self, fd: int) -> None:
        """Close a connection: a launcher that waits gives up."""
        self._poll.unregister(fd)
        self._open.pop(fd).connection.close()
        self._look_at_room()

    def make_room(self) -> None:
        """Close what is to give way by now."""
        others = [fd for fd, one in self._open.items() if one.peer != self._own]
        if len(others) >= LIMIT and self._open[others[0]].began + PATIENCE <= time.monotonic():
            self.close(others[0])
        self._look_at_room()

    def timeout(self) -> float | None:
        """Return after how many seconds to call ``make_room``, None where that is not needed."""
        if not self._is_full:
            return None
        oldest = next(one for one in self._open.values() if one.peer != self._own)
        return max(0.0, oldest.began + PATIENCE - time.monotonic())

    def _look_at_room(self) -> None:
        """Listen as long as there is room for one more; else they wait: connect(2), "backlog"."""
        is_full = sum(one.peer != self._own for one in self._open.values()) >= LIMIT
        if is_full and not self._is_full:
            self._poll.unregister(self._socket.fileno())
        elif self._is_full and not is_full:
            self._poll.register(self._socket.fileno(), select.POLLIN)
        self._is_full = is_full
