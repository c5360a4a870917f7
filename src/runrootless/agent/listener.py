"""The socket on which the runtime hands over the seccomp listener of a process.

OCI runtime spec, config-linux.md, "seccomp": the runtime connects to ``listenerPath``
and sends one ``ContainerProcessState`` as JSON, with the descriptors that it lists in
``fds`` as SCM_RIGHTS.
"""

from __future__ import annotations

import _socket
import os
import struct

from runrootless.bundle.json_file import scan
from runrootless.errors import Error

_MESSAGE_LIMIT = 1 << 20
_FDS_LIMIT = 8
_PID_LIMIT = 1 << 31
_FD_SIZE = struct.calcsize("i")
_PEER = struct.Struct("3i")


class Handover:
    """A process that came under the filter: its pid and the descriptor of its listener."""

    __slots__ = ("fd", "pid")

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd


class Connection:
    """One connection to the socket, read until its message is whole."""

    def __init__(self, fd: int) -> None:
        self._socket = _socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._fds: list[int] = []
        self._data = b""

    def peer_uid(self) -> int:
        """Return the user ID of the process at the other end: SO_PEERCRED, unix(7)."""
        option = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _PEER.size)
        return int(_PEER.unpack(option)[1])

    def receive(self) -> Handover | None:
        """Read what is there; return the handover once it is whole, None before that.

        Raises Error for a message that is none, OSError as recvmsg(2) does.
        """
        try:
            data, ancillary, _, _ = self._socket.recvmsg(
                65536, _socket.CMSG_SPACE(_FDS_LIMIT * _FD_SIZE), _socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        for level, kind, value in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                count = len(value) // _FD_SIZE
                self._fds += struct.unpack(f"{count}i", value[: count * _FD_SIZE])
        self._data += data
        if len(self._data) > _MESSAGE_LIMIT or len(self._fds) > _FDS_LIMIT:
            raise Error("a message on the listener socket is too long")
        if data and not self._data.rstrip().endswith(b"}"):
            return None
        try:
            state = scan(self._data.decode())
        except ValueError:
            if data:
                # The closing brace may have been an inner one.
                return None
            raise Error("a message on the listener socket is no JSON document") from None
        try:
            return self._handover(state)
        except (LookupError, TypeError, ValueError):
            raise Error("a message on the listener socket is no ContainerProcessState") from None

    def close(self) -> None:
        """Close the connection and the descriptors that nobody took."""
        self._socket.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _handover(self, state: dict[str, object]) -> Handover:
        names, pid = state["fds"], state["pid"]
        if not isinstance(names, list) or type(pid) is not int:
            raise TypeError
        # 0 from crun, of what it executes in a container that has been joined already.
        if not 0 <= pid < _PID_LIMIT:
            raise ValueError
        return Handover(pid, self._fds.pop(names.index("seccompFd")))
