"""Whose the messages are: what SCM_CREDENTIALS of unix(7) are to tell of a process.

The kernel knows which process has sent a message, and its own IDs of it. The emulated ones
of a process that lives are asked for. What it has chosen itself is known from its last
sendmsg(2), and what it had before it ended from that, setuid(2) or execve(2).
"""

from __future__ import annotations

import os

from runrootless.emulation.identity import Identity
from runrootless.emulation.sockets import number_for
from runrootless.linux.processes import read_status, status_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.credentials import Credentials

_LIMIT = 4096


class Sender:
    """The IDs that a process has sent, with the credentials that it had then.

    ``numbers`` are its process IDs, from the agent's pid namespace down to its own.
    """

    __slots__ = ("credentials", "ids", "numbers")

    def __init__(self, credentials: Credentials, ids: tuple[int, int], status: bytes) -> None:
        self.credentials = credentials
        self.ids = ids
        self.numbers = [int(number) for number in status_fields(status, b"NStgid")]


class Senders:
    """Keeps the last message of each process that matters."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._senders: dict[int, Sender] = {}
        self.are_asked_for = False
        """Whether some process has asked for the IDs of senders (SO_PASSCRED)."""

    def ask(self) -> None:
        """Take note that a process asks for the IDs of senders."""
        self.are_asked_for = True
        self._identity.observer = self.note_own

    def note(self, pid: int, sender: Sender) -> None:
        """Take note of what a process sends now."""
        self._senders.pop(pid, None)
        while len(self._senders) >= _LIMIT:
            del self._senders[next(iter(self._senders))]
        self._senders[pid] = sender

    def note_own(self, thread: int, credentials: Credentials) -> None:
        """Take note of what a thread sends as long as it chooses no IDs. Raises OSError: ENOENT."""
        ids = credentials.uids[0], credentials.gids[0]
        known = self._senders.get(thread)
        if known is not None and known.ids == ids and known.credentials == credentials:
            return
        # Root's is what is shown of those of whom nothing is known.
        if self._senders or any(ids):
            status = read_status(thread)
            self.note(int(status_fields(status, b"Tgid")[0]), Sender(credentials, ids, status))

    def ids(self, pid: int) -> tuple[int, int]:
        """Return the user and group ID that a message of a process is to show.

        Root's where it has ended, and nothing is known of it.
        """
        sender = self._senders.get(pid)
        if os.path.exists(b"%d" % pid):
            credentials = self._identity.of(pid)
            if sender is None or sender.credentials != credentials:
                return credentials.uids[0], credentials.gids[0]
        return (0, 0) if sender is None else sender.ids

    def number(self, pid: int, depth: int) -> int:
        """Return a process's ID in the pid namespace that is so far down, 0 if it has none."""
        sender = self._senders.get(pid)
        if sender is None or os.path.exists(b"%d" % pid):
            return number_for(pid, depth)
        return sender.numbers[depth] if depth < len(sender.numbers) else 0
