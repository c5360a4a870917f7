"""The socket on which a launcher hands over the seccomp listener of its process.

The launcher (native/launcher.c) writes the number that its listener has as a descriptor. The
kernel says which process has written it (SO_PASSCRED, unix(7)), and pidfd_getfd(2) takes the
listener out of that process. Sending a descriptor would be a call that the filter intercepts.
"""

from __future__ import annotations

import _socket
import os
import struct

from runrootless.agent import control
from runrootless.errors import Error
from runrootless.linux import pidfd

_NUMBER = struct.Struct("=i")
_CREDENTIALS = struct.Struct("3i")
_LISTENER = "anon_inode:seccomp notify"
_THANKS, _REFUSAL = b"\1", b"\2"
_REASON_SIZE = 2048
# Seconds in which an agent that can begins to serve.
_PATIENCE = 60.0


class Handover:
    """A process that came under the filter: its pid and the descriptor of its listener."""

    __slots__ = ("fd", "pid")

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd


class Connection:
    """One connection to the socket, from which it has SO_PASSCRED."""

    lasts = False
    """Whether more than one handover may come."""

    def __init__(self, fd: int) -> None:
        self._socket = _socket.socket(fileno=fd)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._socket.fileno()

    def peer(self) -> tuple[int, int]:
        """Return process and user ID of what is at the other end: SO_PEERCRED, unix(7)."""
        option = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(option)
        return pid, uid

    def receive(self) -> Handover | None:
        """Read what is there; return the handover, None where nobody will hand anything over.

        Raises Error for a message that is none, BlockingIOError where there is nothing to read
        yet, and OSError as pidfd_getfd(2) does.
        """
        data, ancillary, _, _ = self._socket.recvmsg(
            _NUMBER.size, _socket.CMSG_SPACE(_CREDENTIALS.size), _socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            return None
        pid = 0
        for level, kind, value in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS):
                pid = _CREDENTIALS.unpack(value[: _CREDENTIALS.size])[0]
        if len(data) != _NUMBER.size or pid <= 0:
            raise Error("a message on the listener socket is none")
        fd = pidfd.duplicate(pid, _NUMBER.unpack(data)[0])
        return _handover(pid, fd)

    def thank(self) -> None:
        """Tell the launcher that its listener is served. Raises OSError where it has gone."""
        self._socket.send(_THANKS, _socket.MSG_NOSIGNAL)

    def refuse(self, reason: str) -> None:
        """Have the launcher say why there will be no program, and fail."""
        try:
            message = f"runrootless: {reason}".encode("utf-8", "surrogateescape")
            self._socket.send(_REFUSAL + message[:_REASON_SIZE], _socket.MSG_NOSIGNAL)
        except OSError:
            # It has gone.
            pass

    def close(self) -> None:
        """Close the connection: a launcher that waits gives up."""
        self._socket.close()


def _handover(pid: int, fd: int) -> Handover:
    """Return the handover of a descriptor, if it is a listener. Raises Error."""
    try:
        if os.readlink(f"/proc/self/fd/{fd}") != _LISTENER:
            raise Error(f"process {pid} hands over what is no listener")
    except BaseException:
        os.close(fd)
        raise
    return Handover(pid, fd)


class Tracer(Connection):
    """A connection to a tracer of ours, which hands over the listeners of processes it traces.

    It is one end of a socket pair whose other end only the tracer has. So it may say of which
    process a listener is.
    """

    lasts = True

    def receive(self) -> Handover | None:
        """Do as ``Connection.receive``."""
        _, data, fds = control.receive(self._socket)
        if not fds:
            return None
        return _handover(_NUMBER.unpack(data)[0], fds[0])


def hand_over(socket: _socket.socket, pid: int, listener: int) -> None:
    """Hand a listener of another process over to the agent, a ``Tracer`` there.

    Raises Error where it is not served.
    """
    socket.settimeout(_PATIENCE)
    try:
        if control.send(socket, control.LISTENER, _NUMBER.pack(pid), [listener]):
            answer = socket.recv(_REASON_SIZE)
            if answer[:1] == _THANKS:
                return
            if answer[:1] == _REFUSAL:
                raise Error(answer[1:].decode("utf-8", "replace").removeprefix("runrootless: "))
    except OSError:
        pass
    raise Error("the agent that emulates root has ended before it began: see --log")
