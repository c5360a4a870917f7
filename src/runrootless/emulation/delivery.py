"""A message that the agent has received: how it gets into the memory of its receiver."""

from __future__ import annotations

import errno
import os
import struct
from _socket import MSG_CMSG_CLOEXEC, MSG_CTRUNC, SCM_CREDENTIALS, SCM_RIGHTS, SOL_SOCKET

from runrootless.emulation.call import Call, failure, write
from runrootless.emulation.senders import Senders
from runrootless.linux.control_data import CREDENTIALS, Builder, Header, Layout
from runrootless.linux.memory import Memory
from runrootless.linux.messages import SCM_PIDFD, Received, pack_descriptors, unpack_descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select

_LENGTH = struct.Struct("=I")


class Reception:
    """A recvmsg(2) that is under way.

    ``header`` is at ``address`` in the caller's memory, and ``vectors`` are what it names;
    ``inode`` is that of the socket. ``event`` and ``deadline`` are there once it has waited.
    """

    __slots__ = (
        "address",
        "call",
        "deadline",
        "event",
        "flags",
        "header",
        "inode",
        "layout",
        "one_of_many",
        "vectors",
    )

    def __init__(
        self,
        call: Call,
        layout: Layout,
        header: Header,
        vectors: list[tuple[int, int]],
        flags: int,
        one_of_many: bool,
    ) -> None:
        self.call = call
        self.layout = layout
        self.address = call.arguments[1]
        self.header = header
        self.vectors = vectors
        self.flags = flags
        self.one_of_many = one_of_many
        self.inode = 0
        self.event: select.epoll | None = None
        self.deadline: float | None = None


class Delivery:
    """Writes messages into the memory of their receivers, with the senders' emulated IDs."""

    def __init__(self, memory: Memory, senders: Senders) -> None:
        self._memory = memory
        self._senders = senders

    def deliver(self, reception: Reception, received: Received, depth: int) -> None:
        """Write all of a message into the caller's memory, and give it the descriptors.

        ``depth`` is how many pid namespaces down from the agent's the caller is. Raises
        OSError: EFAULT.
        """
        call, layout, header = reception.call, reception.layout, reception.header
        control = self._control(reception, received, depth)
        flags = received.flags & ~MSG_CMSG_CLOEXEC | reception.flags & MSG_CMSG_CLOEXEC
        if control.is_cut:
            flags |= MSG_CTRUNC
        parts = [(header.control, control.data)]
        if header.name:
            parts.append((header.name, received.name[: header.name_size]))
            name_size = _LENGTH.pack(len(received.name))
            parts.append((reception.address + layout.name_size_offset, name_size))
        end = layout.pack_end(len(control.data), flags)
        parts.append((reception.address + layout.end_offset, end))
        if reception.one_of_many:
            parts.append((reception.address + layout.size, _LENGTH.pack(received.count)))
        position = 0
        for address, length in reception.vectors:
            if position >= len(received.data):
                break
            parts.append((address, received.data[position : position + length]))
            position += length
        if not write(self._memory, call, *parts):
            raise failure(errno.EFAULT)

    def _control(self, reception: Reception, received: Received, depth: int) -> Builder:
        builder = Builder(reception.layout, reception.header.control_size)
        builder.is_cut = bool(received.flags & MSG_CTRUNC)
        for level, kind, data in received.messages():
            if (level, kind) == (SOL_SOCKET, SCM_CREDENTIALS):
                builder.put(level, kind, self._credentials(data, depth, received.count == 0))
            elif level == SOL_SOCKET and kind in (SCM_RIGHTS, SCM_PIDFD):
                _put_descriptors(builder, reception, kind, unpack_descriptors(data))
            else:
                builder.put(level, kind, data)
        return builder

    def _credentials(self, data: bytes, depth: int, is_empty: bool) -> bytes:
        """Return the ``struct ucred`` that the caller is to see for the agent's."""
        pid, uid, gid = CREDENTIALS.unpack(data)
        if is_empty and not pid:
            # The end of a stream: zero of the host, which has no number in the container.
            return CREDENTIALS.pack(0, 0, 0)
        if pid and not uid and not gid:
            uid, gid = self._senders.ids(pid)
        return CREDENTIALS.pack(self._senders.number(pid, depth), uid, gid)


def _put_descriptors(
    builder: Builder, reception: Reception, kind: int, descriptors: list[int]
) -> None:
    """Give the caller as many descriptors as there is room for, as ``scm_detach_fds`` does."""
    numbers: list[int] = []
    close_on_exec = os.O_CLOEXEC if reception.flags & MSG_CMSG_CLOEXEC or kind == SCM_PIDFD else 0
    for fd in descriptors[: max(0, builder.left()) // len(pack_descriptors([0]))]:
        try:
            numbers.append(reception.call.add_fd(fd, close_on_exec))
        except OSError:
            break
    if numbers:
        builder.put(SOL_SOCKET, kind, pack_descriptors(numbers))
    if len(numbers) < len(descriptors):
        builder.is_cut = True
