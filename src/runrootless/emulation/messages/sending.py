"""Sending SCM_CREDENTIALS and descriptors, unix(7): sendmsg(2), sendmmsg(2).

The kernel sends all messages itself, for nobody else can send them in the caller's name.
It takes no IDs that it does not know: those are checked here by its rules, remembered for
the receiver, and replaced by root's in the caller's memory.
"""

from __future__ import annotations

import errno
import struct
from _socket import SCM_CREDENTIALS, SCM_RIGHTS, SOL_SOCKET
from _thread import allocate_lock

from runrootless.emulation.call import Call, write
from runrootless.emulation.callers.credentials import (
    CAP_SETGID,
    CAP_SETUID,
    CAP_SYS_ADMIN,
    NO_CHANGE,
)
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.messages.senders import Sender, Senders
from runrootless.emulation.messages.sockets import take
from runrootless.linux.control_data import COMPAT, CREDENTIALS, NATIVE, Header, Layout
from runrootless.linux.processes import find_process, read_status, status_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import TypeAlias

    from runrootless.emulation.callers.credentials import Credentials

    Ucred: TypeAlias = tuple[int, int, int]
    # The address in the caller's memory, what is there, and the padding behind it.
    Stated: TypeAlias = tuple[int, Ucred, bytes]

_IDS_OFFSET = 4
"""Where the user ID is in ``struct ucred``, and behind it the group ID."""
_CONTROL_LIMIT = 1 << 17
"""For all messages of a call, in bytes; the kernel's is as large (``optmem_max``)."""
_MESSAGES_LIMIT = 1024
"""``UIO_MAXIOV``."""
_REPLACED_LIMIT = 1024
_MARK = b"\xffrr\xff"
"""What fills the padding behind credentials that have been replaced."""
_UNKNOWN: Ucred = (0, NO_CHANGE, NO_CHANGE)
_DESCRIPTOR = struct.Struct("=i")
_DESCRIPTORS_LIMIT = 253
"""``SCM_MAX_FD``."""


class Sending(Handlers):
    """Handlers of the calls that send messages."""

    def __init__(self, shared: Shared, senders: Senders) -> None:
        super().__init__(shared)
        self._senders = senders
        self._lock = allocate_lock()
        # What a process has stated where root's IDs are now, by process and address.
        self._replaced: dict[tuple[int, int], Ucred] = {}

    def sendmsg(self, call: Call) -> int | None:
        """sendmsg(2)."""
        return self._send(call, NATIVE, 1, NATIVE.size)

    def sendmsg_32(self, call: Call) -> int | None:
        """sendmsg(2) of 32-bit programs."""
        return self._send(call, COMPAT, 1, COMPAT.size)

    def sendmmsg(self, call: Call) -> int | None:
        """sendmmsg(2)."""
        return self._send(call, NATIVE, _count(call), NATIVE.stride)

    def sendmmsg_32(self, call: Call) -> int | None:
        """sendmmsg(2) of 32-bit programs."""
        return self._send(call, COMPAT, _count(call), COMPAT.stride)

    def _send(self, call: Call, layout: Layout, count: int, stride: int) -> int | None:
        data = self._memory.read(call.pid, call.arguments[1], count * stride)
        if data is None:
            return None
        room = _CONTROL_LIMIT
        chooses = False
        for index in range(count):
            header = layout.header(data, index * stride)
            stated = []
            if header.control_size >= layout.data_offset + _DESCRIPTOR.size:
                room -= header.control_size
                if room < 0:
                    return -errno.ENOBUFS
                control = self._memory.read(call.pid, header.control, header.control_size) or b""
                stated = _stated(layout, header, control)
                self._note_sent(call, layout, control)
            chooses = bool(stated)
            refusal = self._check(call, stated) if stated else 0
            if refusal and index == 0:
                return -refusal
            if refusal:
                # The kernel is to send those before it, and to refuse this one.
                self._replace(call, stated, _UNKNOWN)
                break
        if self._senders.are_asked_for and not chooses:
            self._senders.note_own(call.pid, self._identity.of(call.pid))
        return None

    def _note_sent(self, call: Call, layout: Layout, control: bytes) -> None:
        """Note the makers of the files that a message's descriptors refer to."""
        for level, kind, offset, length in layout.messages(control):
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                data = control[offset : offset + length - length % _DESCRIPTOR.size]
                numbers = [b"%d" % number for (number,) in _DESCRIPTOR.iter_unpack(data)]
                del numbers[_DESCRIPTORS_LIMIT:]
                self._makers.note(call.pid, numbers, self._identity.of(call.pid))

    def _check(self, call: Call, stated: list[Stated]) -> int:
        """Have a message with credentials accepted by the kernel; return an errno, or 0.

        Raises OSError: ESRCH for a process that is not there.
        """
        status = read_status(call.pid)
        process, own = (int(status_fields(status, key)[-1]) for key in (b"Tgid", b"NStgid"))
        credentials = self._identity.of(call.pid)
        meant = (0, 0, 0)
        foreign = []
        for address, found, padding in stated:
            replaced = self._replaced.pop((process, address), None)
            meant = found
            # Sent once more, as after EINTR, or a new message at the same place.
            if replaced is not None and found == (replaced[0], 0, 0):
                is_refused = self._refusal(call.pid, credentials, own, found) != 0
                if padding == _MARK or (not padding and is_refused):
                    meant = replaced
            refusal = self._refusal(call.pid, credentials, own, meant)
            if refusal:
                return refusal if self._counts(call, status) else 0
            if any(meant[1:]):
                foreign.append((address, meant, padding))
        self._replace(call, foreign, (0, 0, 0))
        for address, ids, _ in foreign:
            self._remember(process, address, ids)
        # The kernel goes by the last one.
        pid, uid, gid = meant
        if pid == own:
            sender, sender_status = process, status
        else:
            sender = find_process(call.pid, pid)
            sender_status = read_status(sender)
        self._senders.note(sender, Sender(self._identity.of(sender), (uid, gid), sender_status))
        return 0

    def _refusal(self, thread: int, credentials: Credentials, own: int, stated: Ucred) -> int:
        """Return why the kernel's ``scm_check_creds`` refuses what a thread states, or 0.

        ``own`` is its process's number in its own pid namespace. Raises OSError: ESRCH, ENOENT.
        """
        pid, uid, gid = stated
        if NO_CHANGE in (uid, gid):
            return errno.EINVAL
        may = self._identity.may
        if (
            (pid == own or may(thread, credentials, CAP_SYS_ADMIN))
            and (uid in credentials.uids[:3] or may(thread, credentials, CAP_SETUID))
            and (gid in credentials.gids[:3] or may(thread, credentials, CAP_SETGID))
        ):
            return 0
        return errno.EPERM

    def _replace(self, call: Call, stated: list[Stated], new: Ucred) -> None:
        """Put other user and group IDs into the caller's memory."""
        for address, _, padding in stated:
            ids = CREDENTIALS.pack(*new)[_IDS_OFFSET:]
            mark = _MARK if len(padding) == len(_MARK) else b""
            # Where it cannot be written to, the kernel refuses what it does not know.
            write(self._memory, call, (address + _IDS_OFFSET, ids + mark))

    def _remember(self, process: int, address: int, meant: Ucred) -> None:
        with self._lock:
            while len(self._replaced) >= _REPLACED_LIMIT:
                del self._replaced[next(iter(self._replaced))]
            self._replaced[process, address] = meant

    def _counts(self, call: Call, status: bytes) -> bool:
        """Return whether the caller sends by a socket that has credentials."""
        socket = take(call, status)
        if socket is None:
            return False
        socket.close()
        return True


def _stated(layout: Layout, header: Header, control: bytes) -> list[Stated]:
    """Return all credentials of a message that the kernel would look at."""
    padding = layout.padding(layout.credentials_size)
    return [
        (
            header.control + offset,
            CREDENTIALS.unpack_from(control, offset),
            control[offset + length : offset + length + padding],
        )
        for level, kind, offset, length in layout.messages(control)
        if (level, kind, length) == (SOL_SOCKET, SCM_CREDENTIALS, CREDENTIALS.size)
    ]


def _count(call: Call) -> int:
    return min(call.arguments[2] & 0xFFFFFFFF, _MESSAGES_LIMIT)
