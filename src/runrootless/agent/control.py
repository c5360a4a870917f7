"""The messages between supervisor and worker, on a socket that closes when one of them ends."""

from __future__ import annotations

import _socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LISTENER = b"L"
"""A listener, as a descriptor, its number, and the process that it was made for."""

CALLS = b"C"
"""A call that the last worker has left without an answer, its listener's number before it."""

RUNTIME_ENDED = b"R"
"""Nobody waits for what the runtime prints any more."""

HANGS = b"H"
"""From the worker: calls hang. The end of its first thread is to be looked for from now on."""

NUMBER = struct.Struct("=I")

_SIZE = 4096
_FD = struct.Struct("i")


def pair() -> tuple[_socket.socket, _socket.socket]:
    """Return both ends of a new socket. Raises OSError."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def send(socket: _socket.socket, kind: bytes, data: bytes = b"", fds: Sequence[int] = ()) -> bool:
    """Send a message; return whether there is somebody who may receive it."""
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(map(_FD.pack, fds)))]
    try:
        socket.sendmsg([kind + data], rights if fds else [], _socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


def receive(socket: _socket.socket) -> tuple[bytes, bytes, list[int]]:
    """Return kind, data and descriptors of the next message; no kind where there is no other end.

    Raises OSError: EAGAIN where there is none.
    """
    flags = _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC
    data, ancillary, _, _ = socket.recvmsg(_SIZE, _socket.CMSG_SPACE(_FD.size), flags)
    fds = []
    for level, kind, value in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            fds += [fd for (fd,) in _FD.iter_unpack(value)]
    return data[:1], data[1:], fds
