"""Senders of messages: the IDs that SCM_CREDENTIALS, unix(7), show of a process.

The kernel knows which process has sent a message, and that process's real IDs. The emulated
IDs of a living process are read from it. The IDs that it chose itself are known from its last
sendmsg(2), and those it had before it ended from that, setuid(2) or execve(2).
"""

from __future__ import annotations

import os

from runrootless.emulation.callers.identity import Identity
from runrootless.emulation.messages.sockets import number_for
from runrootless.emulation.stores.lasting_map import LastingMap
from runrootless.linux.processes import read_status, status_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import TypeAlias

    from runrootless.emulation.callers.credentials import Credentials

    Packed: TypeAlias = "tuple[int | None, tuple[int, int], tuple[int, ...]]"

_LIMIT = 4096
_ASKED = ("asked",)
_UNKNOWN: Packed = (None, (0, 0), ())


class Sender:
    """The IDs that a process has sent, with the credentials that it had then.

    ``numbers`` are its process IDs, from the agent's pid namespace down to its own, and
    ``fingerprint`` tells its credentials from all others.
    """

    __slots__ = ("fingerprint", "ids", "numbers")

    def __init__(self, credentials: Credentials, ids: tuple[int, int], status: bytes) -> None:
        self.fingerprint = hash(credentials)
        self.ids = ids
        self.numbers = tuple(int(number) for number in status_fields(status, b"NStgid"))

    def packed(self) -> Packed:
        """Return it as it is kept for the next worker: numbers hash the same in all of them."""
        return self.fingerprint, self.ids, self.numbers


class Senders:
    """Keeps the last message of each process that matters, and lets the next worker know."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self.kept = LastingMap("senders", _LIMIT)
        self.are_asked_for = False
        """Whether some process has asked for the IDs of senders (SO_PASSCRED)."""

    def take_over(self) -> None:
        """Begin with what the worker before has kept, if there was one. Raises OSError."""
        self.kept.take_over()
        # The entry that tells so may have given way to those of senders.
        if len(self.kept):
            self._begin()

    def ask(self) -> None:
        """Take note that a process asks for the IDs of senders. Raises OSError: ENOMEM."""
        if not self.are_asked_for:
            self.kept.set(_ASKED, True)
            self._begin()

    def _begin(self) -> None:
        self.are_asked_for = True
        self._identity.observe(self.note_own)

    def note(self, pid: int, sender: Sender) -> None:
        """Take note of what a process sends now. Raises OSError: ENOMEM."""
        if self.kept.get((pid,)) != sender.packed():
            self.kept.set((pid,), sender.packed())

    def note_own(self, thread: int, credentials: Credentials) -> None:
        """Take note of what a thread sends as long as it chooses no IDs. Raises OSError: ENOENT."""
        ids = credentials.uids[0], credentials.gids[0]
        known = self.kept.get((thread,))
        if known is not None and known[:2] == (hash(credentials), ids):
            return
        # Root's is what is shown of those of whom nothing is known.
        if len(self.kept) > 1 or any(ids):
            status = read_status(thread)
            self.note(int(status_fields(status, b"Tgid")[0]), Sender(credentials, ids, status))

    def ids(self, pid: int) -> tuple[int, int]:
        """Return the user and group ID that a message of a process is to show.

        Root's where it has ended, and nothing is known of it.
        """
        fingerprint, ids, _ = self.kept.get((pid,)) or _UNKNOWN
        credentials = self._identity.of(pid)
        # Asked for last: a process that has ended meanwhile was read as root.
        if os.path.exists(b"%d" % pid) and fingerprint != hash(credentials):
            return credentials.uids[0], credentials.gids[0]
        return ids

    def number(self, pid: int, depth: int) -> int:
        """Return a process's ID in the pid namespace that is so far down, 0 if it has none."""
        found = self.kept.get((pid,))
        number = number_for(pid, depth)
        if found is None or os.path.exists(b"%d" % pid):
            return number
        numbers = found[2]
        return numbers[depth] if depth < len(numbers) else 0
