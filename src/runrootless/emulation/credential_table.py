"""How a credential set fits into the one number that the kernel keeps per process.

The number is the soft limit of RLIMIT_RTTIME. Without bits 62 and 63 (and as
infinity) it stands for root. Bit 62 alone: one uid and one gid in 31 bits each, for
a process as it is started as that user, without supplementary groups. Bit 63: the
other bits are an index into a table.

The table is a file of the container's private directory, a line for each set, never
changed but at its end: the command line (for ``exec``) and the agent both append to
it, and a number means the same to whoever reads it. Standard library modules that
cost start-up time are not imported here, since the command line needs it.
"""

from __future__ import annotations

import errno
import fcntl
import os

from runrootless.emulation.credentials import ROOT, Credentials, initial

INFINITY = 0xFFFFFFFFFFFFFFFF
_DIRECT = 1 << 62
_INDEX = 1 << 63
_ID_BITS = 31
_CACHE_LIMIT = 1024
_ID_MASK = (1 << _ID_BITS) - 1

SIZE_LIMIT = 4 * 1024 * 1024
"""The table's largest size in bytes; a process that wants more sets gets ENOMEM."""


class CredentialTable:
    """Encodes and decodes credential sets; ``fd`` is the table's file, opened O_RDWR|O_APPEND."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._sets: list[Credentials] = []
        self._numbers: dict[Credentials, int] = {}
        self._direct: dict[int, Credentials] = {}
        self._size = 0

    def encode(self, credentials: Credentials) -> int:
        """Return the number for a set. Raises OSError: ENOMEM where the table is full."""
        if credentials == ROOT:
            return INFINITY
        uid, gid = credentials.uids[0], credentials.gids[0]
        if uid <= _ID_MASK and gid <= _ID_MASK and credentials == initial(uid, gid):
            return _DIRECT | uid << _ID_BITS | gid
        number = self._numbers.get(credentials)
        return self._append(credentials) if number is None else number

    def decode(self, number: int) -> Credentials:
        """Return the set for a number; root for one that is none of ours."""
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
        if index >= len(self._sets):
            self._catch_up()
        return self._sets[index] if index < len(self._sets) else ROOT

    def _append(self, credentials: Credentials) -> int:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            self._catch_up()
            number = self._numbers.get(credentials)
            if number is None:
                line = _to_line(credentials)
                if self._size + len(line) > SIZE_LIMIT:
                    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
                os.write(self._fd, line)
                self._catch_up()
                number = self._numbers[credentials]
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        return number

    def _catch_up(self) -> None:
        data = b""
        while part := os.pread(self._fd, 1 << 20, self._size + len(data)):
            data += part
        data = data[: data.rfind(b"\n") + 1]
        self._size += len(data)
        for line in data.splitlines():
            credentials = _from_line(line)
            self._numbers.setdefault(credentials, _INDEX | len(self._sets))
            self._sets.append(credentials)


def _to_line(credentials: Credentials) -> bytes:
    capabilities = credentials.permitted, credentials.effective, int(credentials.keep)
    numbers = (*credentials.uids, *credentials.gids, *capabilities, *credentials.groups)
    return b" ".join(b"%d" % number for number in numbers) + b"\n"


def _from_line(line: bytes) -> Credentials:
    r, e, s, f, rg, eg, sg, fg, permitted, effective, keep, *groups = map(int, line.split())
    return Credentials(
        (r, e, s, f), (rg, eg, sg, fg), tuple(groups), permitted, effective, bool(keep)
    )
