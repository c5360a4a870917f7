"""How credentials fit into the one number that the kernel keeps per process.

The number is the soft limit of RLIMIT_RTTIME. Without bits 62 and 63 (and as
infinity) it stands for root. Bit 62 alone: one uid and one gid in 31 bits each, for
a process as it is started as that user, without supplementary groups. Bit 63: the
other bits are an index into a table; with bit 61 as well, what is there is not true
of all threads of the process (``threads``).

The table is a file of the container's private directory, a line for each entry, never
changed but at its end: the command line (for ``exec``) and the agent both append to
it, and a number means the same to whoever reads it. Standard library modules that
cost start-up time are not imported here, since the command line needs it.
"""

from __future__ import annotations

import errno
import fcntl
import os

from runrootless.emulation.credentials import ROOT, Credentials, initial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    State: TypeAlias = tuple[int, int, bool]

INFINITY = 0xFFFFFFFFFFFFFFFF
"""``RLIM64_INFINITY``."""

PLAIN: State = (INFINITY, INFINITY, True)
"""What is kept of a process besides its credentials: the soft and the hard limit of
RLIMIT_RTTIME that it has set itself (microseconds), and whether it is dumpable (prctl(2),
PR_SET_DUMPABLE). This is how processes begin."""

VARIED = 1 << 61
"""The bit of a number whose process has threads with other credentials."""

_DIRECT = 1 << 62
_INDEX = 1 << 63
_ID_BITS = 31
_CACHE_LIMIT = 1024
_ID_MASK = (1 << _ID_BITS) - 1

SIZE_LIMIT = 4 * 1024 * 1024
"""The table's largest size in bytes; a process that wants more entries gets ENOMEM."""


class CredentialTable:
    """Encodes and decodes credentials; ``fd`` is the table's file, opened O_RDWR|O_APPEND."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._sets: list[Credentials] = []
        self._states: list[State] = []
        self._indices: dict[tuple[Credentials, State], int] = {}
        self._direct: dict[int, Credentials] = {}
        self._size = 0

    def encode(self, credentials: Credentials, state: State = PLAIN) -> int:
        """Return the number for an entry. Raises OSError: ENOMEM where the table is full."""
        if state == PLAIN:
            if credentials == ROOT:
                return INFINITY
            uid, gid = credentials.uids[0], credentials.gids[0]
            if uid <= _ID_MASK and gid <= _ID_MASK and credentials == initial(uid, gid):
                return _DIRECT | uid << _ID_BITS | gid
        return _INDEX | self.index(credentials, state)

    def encode_varied(self, credentials: Credentials, state: State) -> int:
        """Return the number for a process some of whose threads have other credentials.

        Raises OSError: ENOMEM where the table is full.
        """
        return _INDEX | VARIED | self.index(credentials, state)

    def decode(self, number: int) -> Credentials | None:
        """Return the credentials for a number, root's for one that is none of ours.

        None where they depend on the thread.
        """
        if number == INFINITY or number < _DIRECT:
            return ROOT
        if number < _INDEX:
            found = self._direct.get(number)
            if found is None:
                found = initial(number >> _ID_BITS & _ID_MASK, number & _ID_MASK)
                if len(self._direct) < _CACHE_LIMIT:
                    self._direct[number] = found
            return found
        index = number & ~_INDEX
        if index < len(self._sets):
            return self._sets[index]
        return None if is_varied(number) else self.at(index) or ROOT

    def base(self, number: int) -> Credentials:
        """Return the credentials for a number, of the threads that have no others."""
        return self.decode(number & ~VARIED if is_varied(number) else number) or ROOT

    def state(self, number: int) -> State:
        """Return what is kept for a number besides the credentials."""
        if number == INFINITY or number < _INDEX:
            return PLAIN
        index = number & ~(_INDEX | VARIED)
        return PLAIN if self.at(index) is None else self._states[index]

    def index(self, credentials: Credentials, state: State = PLAIN) -> int:
        """Return the index of an entry, from 0. Raises OSError: ENOMEM where the table is full."""
        index = self._indices.get((credentials, state))
        return self._append(credentials, state) if index is None else index

    def at(self, index: int) -> Credentials | None:
        """Return the credentials at an index; None where there is no such entry."""
        if index >= len(self._sets):
            self._catch_up()
        return self._sets[index] if index < len(self._sets) else None

    def _append(self, credentials: Credentials, state: State) -> int:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            self._catch_up()
            index = self._indices.get((credentials, state))
            if index is None:
                line = _to_line(credentials, state)
                if self._size + len(line) > SIZE_LIMIT:
                    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
                os.write(self._fd, line)
                self._catch_up()
                index = self._indices[credentials, state]
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        return index

    def _catch_up(self) -> None:
        data = b""
        while part := os.pread(self._fd, 1 << 20, self._size + len(data)):
            data += part
        data = data[: data.rfind(b"\n") + 1]
        self._size += len(data)
        for line in data.splitlines():
            credentials, state = _from_line(line)
            self._indices.setdefault((credentials, state), len(self._sets))
            self._sets.append(credentials)
            self._states.append(state)


def is_varied(number: int) -> bool:
    """Return whether the credentials for a number depend on the thread."""
    return number != INFINITY and number & (_INDEX | VARIED) == _INDEX | VARIED


def _to_line(credentials: Credentials, state: State) -> bytes:
    capabilities = credentials.permitted, credentials.effective, credentials.securebits
    numbers = (*state, *credentials.uids, *credentials.gids, *capabilities, *credentials.groups)
    return b" ".join(b"%d" % number for number in numbers) + b"\n"


def _from_line(line: bytes) -> tuple[Credentials, State]:
    soft, hard, dumpable, r, e, s, f, rg, eg, sg, fg, permitted, effective, bits, *groups = map(
        int, line.split()
    )
    credentials = Credentials(
        (r, e, s, f), (rg, eg, sg, fg), tuple(groups), permitted, effective, bits
    )
    return credentials, (soft, hard, bool(dumpable))
