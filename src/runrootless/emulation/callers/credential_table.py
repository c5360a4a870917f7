"""How credentials fit into the one number that the kernel keeps per process.

The number is the soft limit of RLIMIT_RTTIME. Without bits 62 and 63 (and as
infinity) it stands for root. Bit 62 alone: one uid and one gid in 31 bits each, for
a process as it is started as that user, without supplementary groups. Bit 63: the
others say where its credentials are in a table, and what else is kept of it; with bit 61 as
well, the credentials are not those of all threads of the process (``threads``); with bit 60,
they depend on whether it has executed a program by now (``executions``).

    bits 0 to 21   the place of the credentials
    bits 22 to 43  the place of the limits that it has set itself, 0 for none
    bit 44         it cannot be dumped

With bit 60:

    bits 0 to 36   a check of the process's memory before; in the lowest 22 of them the
                   place of its limits instead, if bit 62 is set: less of a check, but no
                   entry for each limit that there is
    bit 37         it could not be dumped before
    bits 38 to 59  the place of what it may have become

The table is a file of the container's private directory (``entry_file``), which the command
line (for ``exec``) and the agent both append to: a number means the same to all its readers.
Standard library modules that cost start-up time are not imported here, since the command line
needs it.
"""

from __future__ import annotations

import os

from runrootless.emulation.callers.credentials import ROOT, Credentials, initial
from runrootless.emulation.stores.entry_file import ROOT as PAID_BY_ROOT
from runrootless.emulation.stores.entry_file import UNIT_BITS, EntryFile, FullError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from typing_extensions import TypeAlias

    State: TypeAlias = tuple[int, int, bool]
    Kept = TypeVar("Kept")

INFINITY = 0xFFFFFFFFFFFFFFFF
"""``RLIM64_INFINITY``."""

PLAIN: State = (INFINITY, INFINITY, True)
"""What is kept of a process besides its credentials: the soft and the hard limit of
RLIMIT_RTTIME that it has set itself (microseconds), and whether it is dumpable (prctl(2),
PR_SET_DUMPABLE). This is how processes begin."""

VARIED = 1 << 61
"""The bit of a number whose process has threads with other credentials."""

PENDING = 1 << 60
"""The bit of a number whose process may or may not have executed a program by now."""

PLACE_MASK = (1 << UNIT_BITS) - 1

NOBODY = initial(65534, 65534)
"""Whom a number stands for whose entry is missing: nobody has been given it."""

_DIRECT = 1 << 62
_INDEX = 1 << 63
_ID_BITS = 31
_ID_MASK = (1 << _ID_BITS) - 1
_LIMITS_SHIFT = UNIT_BITS
_NOT_DUMPABLE = 1 << 44
_LIMITED = 1 << 62
_WAS_NOT_DUMPABLE = 1 << 37
_CHECK_BITS = 37
_CHECK_MASK = (1 << _CHECK_BITS) - 1
_OUTCOME_SHIFT = 38

_CACHE_LIMIT = 1024
_GROUPS_TO_CACHE = 64
_CREDENTIALS, _LIMITS, _OUTCOMES, _KEY = b"c", b"l", b"x", b"k"
_KEY_SIZE = 16
_FIXED = 11
_REPORTS = 64


class Outcome:
    """What an execve(2) makes of a process: its credentials before (of its other threads, if
    these have others), after it by the file that was asked for, and after it by any other.

    ``file`` is the device and inode of that file, (0, 0) where any will do; ``dumpable`` is
    whether it can be dumped afterwards, in the first case and in the second.
    """

    __slots__ = ("before", "dumpable", "file", "new", "plain")

    def __init__(
        self,
        before: Credentials,
        new: Credentials,
        plain: Credentials,
        dumpable: tuple[bool, bool],
        file: tuple[int, int],
    ) -> None:
        self.before = before
        self.new = new
        self.plain = plain
        self.dumpable = dumpable
        self.file = file


class CredentialTable:
    """Encodes and decodes credentials; ``fd`` is the table's file, opened O_RDWR|O_APPEND.

    Any thread may call any method. ``report`` is given, once each, the reasons why an entry
    could not be added.
    """

    def __init__(self, fd: int, report: Callable[[str], None] | None = None) -> None:
        self._file = EntryFile(fd, lambda: b"%b %b" % (_KEY, os.urandom(_KEY_SIZE).hex().encode()))
        self._report = report
        self._reported: set[str] = set()
        self._known: dict[int, Credentials] = {}
        self._sets: dict[int, Credentials] = {}
        self._states: dict[int, State] = {}
        self._limits: dict[int, tuple[int, int]] = {}
        self._places: dict[Credentials, int] = {}
        self._key = b""

    def encode(
        self, credentials: Credentials, state: State = PLAIN, payer: int = PAID_BY_ROOT
    ) -> int:
        """Return the number for credentials and what else is kept of a process.

        ``payer`` is the user who pays for a new entry. Raises FullError, OSError.
        """
        if state == PLAIN:
            if credentials == ROOT:
                return INFINITY
            uid, gid = credentials.uids[0], credentials.gids[0]
            if uid <= _ID_MASK and gid <= _ID_MASK and credentials == initial(uid, gid):
                return _DIRECT | uid << _ID_BITS | gid
        soft, hard, dumpable = state
        number = _INDEX | self.index(credentials, payer)
        number |= self._limits_place(soft, hard, payer) << _LIMITS_SHIFT
        return number if dumpable else number | _NOT_DUMPABLE

    def encode_varied(
        self, credentials: Credentials, state: State, payer: int = PAID_BY_ROOT
    ) -> int:
        """Return the number for a process some of whose threads have other credentials.

        Raises FullError, OSError.
        """
        plain = (*state[:2], False)
        number = self.encode(credentials, plain, payer) & ~_NOT_DUMPABLE | VARIED
        return number if state[2] else number | _NOT_DUMPABLE

    def encode_pending(
        self, outcome: Outcome, state: State, varied: bool, sure: bool, check: int, payer: int
    ) -> int:
        """Return the number for a process that is about to execute a program.

        ``state`` is what is kept of it before, ``varied`` whether its threads differ then, and
        ``check`` a number of 64 bits that its memory is known by, of which 15 bits count if it
        has limits, or 37 if it must be ``sure``. Raises FullError, OSError.
        """
        soft, hard, dumpable = state
        limits = self._limits_place(soft, hard, payer)
        sets = [self.index(one, payer) for one in (outcome.before, outcome.plain, outcome.new)]
        new, plain = outcome.dumpable
        fields = (*sets, new << 1 | plain, *outcome.file, limits if sure else 0)
        text = b" ".join([_OUTCOMES, *(b"%x" % field for field in fields)])
        number = _INDEX | PENDING | self._place(text, payer) << _OUTCOME_SHIFT
        number |= check & _CHECK_MASK
        if limits and not sure:
            number = number & ~PLACE_MASK | limits | _LIMITED
        if varied:
            number |= VARIED
        return number if dumpable else number | _WAS_NOT_DUMPABLE

    def decode(self, number: int) -> Credentials | None:
        """Return the credentials for a number, root's for one that is none of ours.

        None where they depend on the thread, or on whether a program has been executed.
        """
        if number == INFINITY or number < _DIRECT:
            return ROOT
        found = self._known.get(number)
        if found is not None:
            return found
        if number < _INDEX:
            found = initial(number >> _ID_BITS & _ID_MASK, number & _ID_MASK)
        elif number & (VARIED | PENDING):
            return None
        else:
            found = self._at_or_nobody(number & PLACE_MASK)
        return _keep(self._known, number, found)

    def base(self, number: int) -> Credentials:
        """Return the credentials for a number, of the threads that have no others.

        They are those before a program is executed. Raises OSError.
        """
        if is_pending(number):
            return self.outcome(number).before
        return self.decode(number & ~VARIED if is_varied(number) else number) or NOBODY

    def state(self, number: int) -> State:
        """Return what is kept for a number besides the credentials; before, if pending."""
        if number == INFINITY or number < _INDEX:
            return PLAIN
        found = self._states.get(number)
        if found is None:
            if not number & PENDING:
                place = number >> _LIMITS_SHIFT & PLACE_MASK
                dumpable = not number & _NOT_DUMPABLE
            else:
                place = number & PLACE_MASK
                if not number & _LIMITED:
                    place = (self._outcome_fields(number) or (0,))[-1]
                dumpable = not number & _WAS_NOT_DUMPABLE
            found = _keep(self._states, number, (*self._limits_at(place), dumpable))
        return found

    def outcome(self, number: int) -> Outcome:
        """Return what a process with a pending number was about to become.

        ``before`` is that of all threads that are not marked. Raises OSError.
        """
        fields = self._outcome_fields(number)
        if fields is None:
            return Outcome(NOBODY, NOBODY, NOBODY, (True, True), (0, 0))
        before, plain, new, dumpable, device, inode, _ = fields
        return Outcome(
            self._at_or_nobody(before),
            self._at_or_nobody(new),
            self._at_or_nobody(plain),
            (bool(dumpable & 2), bool(dumpable & 1)),
            (device, inode),
        )

    def index(self, credentials: Credentials, payer: int = PAID_BY_ROOT) -> int:
        """Return the place of credentials in the table, over 0. Raises FullError, OSError."""
        found = self._places.get(credentials)
        if found is not None:
            return found
        place = self._place(_to_text(credentials), payer)
        if len(credentials.groups) <= _GROUPS_TO_CACHE:
            _keep(self._places, credentials, place)
        return place

    def at(self, place: int) -> Credentials | None:
        """Return the credentials at a place; None where there are none. Raises OSError."""
        found = self._sets.get(place)
        if found is None:
            fields = self._fields(place, _CREDENTIALS)
            if fields is None or len(fields) < _FIXED:
                return None
            r, e, s, f, rg, eg, sg, fg, permitted, effective, bits, *groups = fields
            found = Credentials(
                (r, e, s, f), (rg, eg, sg, fg), tuple(groups), permitted, effective, bits
            )
            if len(groups) <= _GROUPS_TO_CACHE:
                _keep(self._sets, place, found)
        return found

    def key(self) -> bytes:
        """Return the table's secret, the same for all its readers. Raises FullError, OSError."""
        if not self._key:
            text = self._file.text(0)
            if text is None:
                # Any entry makes it.
                self.index(ROOT)
                text = self._file.text(0) or b""
            self._key = text.removeprefix(_KEY + b" ")
        return self._key

    def _limits_place(self, soft: int, hard: int, payer: int) -> int:
        if (soft, hard) == PLAIN[:2]:
            return 0
        return self._place(b"%b %x %x" % (_LIMITS, soft, hard), payer)

    def _limits_at(self, place: int) -> tuple[int, int]:
        if not place:
            return PLAIN[:2]
        found = self._limits.get(place)
        if found is None:
            fields = self._fields(place, _LIMITS)
            if fields is None:
                return PLAIN[:2]
            soft, hard = fields
            found = _keep(self._limits, place, (soft, hard))
        return found

    def _at_or_nobody(self, place: int) -> Credentials:
        found = self.at(place)
        return NOBODY if found is None else found

    def _outcome_fields(self, number: int) -> list[int] | None:
        return self._fields(number >> _OUTCOME_SHIFT & PLACE_MASK, _OUTCOMES)

    def _fields(self, place: int, kind: bytes) -> list[int] | None:
        """Return the numbers of the entry at a place; None where there is none of its kind."""
        text = self._file.text(place)
        if text is None:
            return None
        found, *fields = text.split(b" ")
        try:
            return [int(field, 16) for field in fields] if found == kind else None
        except ValueError:
            return None

    def _place(self, text: bytes, payer: int) -> int:
        try:
            return self._file.place(text, payer)
        except FullError as error:
            reported = self._reported
            if self._report and error.reason not in reported and len(reported) < _REPORTS:
                reported.add(error.reason)
                self._report(error.reason)
            raise


def is_varied(number: int) -> bool:
    """Return whether the credentials for a number depend on the thread."""
    return number != INFINITY and number & (_INDEX | VARIED) == _INDEX | VARIED


def is_pending(number: int) -> bool:
    """Return whether the credentials depend on whether a program has been executed."""
    return number != INFINITY and number & (_INDEX | PENDING) == _INDEX | PENDING


def check_differs(number: int, check: int) -> bool:
    """Return whether a check is another one than a pending number was made with."""
    different = (number ^ check) & _CHECK_MASK
    return bool(different & ~PLACE_MASK if number & _LIMITED else different)


def _keep(cache: dict[int, Kept] | dict[Credentials, Kept], key: object, value: Kept) -> Kept:
    """Put a value into a cache, which is emptied when it is full; return it."""
    if len(cache) >= _CACHE_LIMIT:
        cache.clear()
    cache[key] = value  # type: ignore[index]
    return value


def _to_text(credentials: Credentials) -> bytes:
    privileges = credentials.permitted, credentials.effective, credentials.securebits
    numbers = (*credentials.uids, *credentials.gids, *privileges, *credentials.groups)
    return b" ".join([_CREDENTIALS, *(b"%x" % number for number in numbers)])
