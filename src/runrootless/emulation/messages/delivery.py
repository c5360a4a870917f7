"""Writing a message that the agent has received into the memory of its receiver."""

from __future__ import annotations

import errno
import os
import struct
from _socket import MSG_CMSG_CLOEXEC, MSG_CTRUNC, SCM_CREDENTIALS, SCM_RIGHTS, SOL_SOCKET

from runrootless.emulation.call import Call, failure, write
from runrootless.emulation.messages.senders import Senders
from runrootless.linux.control_data import CREDENTIALS, Builder, Header, Layout
from runrootless.linux.memory import Memory
from runrootless.linux.messages import SCM_PIDFD, Received, pack_descriptors, unpack_descriptors
from runrootless.linux.pidfd import has_same

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select

_LENGTH = struct.Struct("=I")


class Reception:
    """A recvmsg(2) that is under way.

    ``header`` is what is at ``address`` in the caller's memory, ``image`` the same as bytes,
    which become what is left there, and ``vectors`` are what it names; ``inode`` is that of the
    socket, ``process`` whose it is. ``given`` are the numbers of the descriptors that the caller
    has got. ``event`` and ``deadline`` are there once it has waited.
    """

    __slots__ = (
        "address",
        "call",
        "deadline",
        "event",
        "flags",
        "given",
        "header",
        "image",
        "inode",
        "layout",
        "one_of_many",
        "process",
        "vectors",
    )

    def __init__(
        self,
        call: Call,
        layout: Layout,
        header: Header,
        image: bytes,
        vectors: list[tuple[int, int]],
        flags: int,
        one_of_many: bool,
    ) -> None:
        self.call = call
        self.layout = layout
        self.address = call.arguments[1]
        self.header = header
        self.image = bytearray(image)
        self.given: list[int] = []
        self.process = 0
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

    def deliver(
        self, reception: Reception, received: Received, depth: int, is_trial: bool = False
    ) -> None:
        """Write all of a message into the caller's memory, and give it the descriptors.

        ``depth`` is how many pid namespaces down from the agent's the caller is. The header is
        written last, since it says how much room there is, should the kernel make the call once
        more; with ``is_trial`` it is written as it was. Raises OSError: EFAULT.
        """
        call, layout, header = reception.call, reception.layout, reception.header
        control = self._control(reception, received, depth)
        flags = received.flags & ~MSG_CMSG_CLOEXEC | reception.flags & MSG_CMSG_CLOEXEC
        if control.is_cut:
            flags |= MSG_CTRUNC
        parts: list[tuple[int, bytes | bytearray]] = [(header.control, control.data)]
        if header.name:
            parts.append((header.name, received.name[: header.name_size]))
        position = 0
        for address, length in reception.vectors:
            if position >= len(received.data):
                break
            parts.append((address, received.data[position : position + length]))
            position += length
        if reception.one_of_many and not is_trial:
            parts.append((reception.address + layout.size, _LENGTH.pack(received.count)))
        image = reception.image[:]
        end = layout.pack_end(len(control.data), flags)
        changes = [(layout.end_offset, end)]
        if header.name:
            changes.append((layout.name_size_offset, _LENGTH.pack(len(received.name))))
        for offset, data in changes:
            place = slice(offset, offset + len(data))
            if not is_trial:
                image[place] = data
            parts.append((reception.address + offset, image[place]))
        if not write(self._memory, call, *parts):
            raise failure(errno.EFAULT)
        reception.image = image

    def _control(self, reception: Reception, received: Received, depth: int) -> Builder:
        builder = Builder(reception.layout, reception.header.control_size)
        builder.is_cut = bool(received.flags & MSG_CTRUNC)
        for level, kind, data in received.messages():
            if (level, kind) == (SOL_SOCKET, SCM_CREDENTIALS):
                builder.put(level, kind, self._credentials(data, depth, received.count == 0))
            elif level == SOL_SOCKET and kind in (SCM_RIGHTS, SCM_PIDFD):
                _put_descriptors(builder, reception, kind, unpack_descriptors(data), received.given)
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
    builder: Builder, reception: Reception, kind: int, descriptors: list[int], given: list[int]
) -> None:
    """Give the caller as many descriptors as there is room for, as ``scm_detach_fds`` does.

    Those that it has got of the same message, before it was interrupted, it has still.
    """
    numbers: list[int] = []
    close_on_exec = os.O_CLOEXEC if reception.flags & MSG_CMSG_CLOEXEC or kind == SCM_PIDFD else 0
    for fd in descriptors[: max(0, builder.left()) // len(pack_descriptors([0]))]:
        number = given.pop(0) if given else -1
        try:
            if number < 0 or not has_same(reception.process, number, fd):
                number = reception.call.add_fd(fd, close_on_exec)
        except OSError:
            break
        numbers.append(number)
        reception.given.append(number)
    if numbers:
        builder.put(SOL_SOCKET, kind, pack_descriptors(numbers))
    if len(numbers) < len(descriptors):
        builder.is_cut = True
