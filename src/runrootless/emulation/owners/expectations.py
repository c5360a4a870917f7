"""Sockets that the kernel is about to make, and their owners.

The kernel carries out bind(2) itself, since the address that it takes is the socket's from then
on, and tells nobody the result. So a copy of the caller's socket is kept for a moment. Once
that is bound to the path, the socket of that name that was made meanwhile is the one. A file
that gets the name later, by rename(2) say, is older or younger.
"""

from __future__ import annotations

import os
import stat
import time
from _thread import allocate_lock

from runrootless.emulation.paths.walk import open_child
from runrootless.linux.files import Files, is_overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from runrootless.emulation.call import Call
    from runrootless.emulation.stores.record import Record

_LIMIT = 64
# How long bind(2) may take, in seconds.
_PATIENCE = 1.0
# How long another thread may take to find out about one, in seconds.
_TURN = 0.05
# After how many milliseconds to look for the first time, and then at most.
_FIRST, _LAST = 1, 64
# What /proc/TID/syscall says of a thread that no processor has stopped: proc(5).
_RUNNING = b"running\n"
# Seconds as a file system may keep them that has no fractions.
_EVEN_SECONDS = 2_000_000_000
# Times of files are as fine as the kernel's ticks: clock_gettime(2).
_REALTIME_COARSE = 5


def _system_call(thread: int) -> bytes:
    """Return what /proc/TID/syscall says: the call and where it was made; nothing if it is gone."""
    try:
        with open(f"{thread}/syscall", "rb", buffering=0) as file:
            return file.readall()
    except OSError:
        return b""


class _Expected:
    """A socket that a call of bind(2) makes, by its name in a directory.

    ``parent`` is a descriptor, closed with this. ``device`` is st_dev of the socket, None where
    that may be another than the directory's.
    """

    __slots__ = (
        "_address", "_begin", "_deadline", "_end", "_shown", "_socket", "_thread", "delay",
        "device", "is_over", "lock", "name", "parent", "record",
    )  # fmt: skip

    def __init__(
        self,
        parent: int,
        name: bytes,
        record: Record,
        socket: _socket.socket,
        address: bytes,
        call: Call,
    ) -> None:
        self.parent = os.dup(parent)
        self.name = name
        self.record = record
        self.device = None if is_overlay(parent) else os.fstat(parent).st_dev
        self.is_over = False
        self.lock = allocate_lock()
        self.delay = _FIRST
        self._socket: _socket.socket | None = socket
        self._address = address
        self._thread = call.pid
        self._shown = _system_call(call.pid)
        self._deadline = time.monotonic() + _PATIENCE
        self._begin = time.clock_gettime_ns(_REALTIME_COARSE)
        self._end = 0

    @property
    def is_pending(self) -> bool:
        """Whether it is not known yet what became of the call."""
        return self._socket is not None

    def look(self) -> None:
        """Find out what became of the call, and let go of the caller's socket if it is over."""
        if self._socket is None:
            return
        address = address_of(self._socket)
        if address == self._address:
            self._end = time.time_ns()
        elif address or time.monotonic() >= self._deadline:
            self.is_over = True
        else:
            return
        socket, self._socket = self._socket, None
        socket.close()

    def is_under_way(self) -> bool:
        """Return whether the caller may still be in the call, as its /proc says."""
        return _system_call(self._thread) in (_RUNNING, self._shown)

    def fits(self, file: int, files: Files) -> bool:
        """Return whether a file came into being while the call was under way."""
        status = os.fstat(file)
        # Nothing is written to a socket's file.
        born = files.birth_time(file) or status.st_mtime_ns
        begin = self._begin if born % 1_000_000_000 else self._begin - _EVEN_SECONDS
        return stat.S_ISSOCK(status.st_mode) and begin <= born <= self._end

    def __del__(self) -> None:
        os.close(self.parent)
        if self._socket is not None:
            self._socket.close()


class Expectations:
    """Records the owners of sockets that bind(2) makes. ``keep`` keeps a record of an open file.

    Several threads may use it.
    """

    def __init__(self, files: Files, keep: Callable[[int, Record], None]) -> None:
        self._files = files
        self._keep = keep
        self._expected: list[_Expected] = []
        self._lock = allocate_lock()
        self.wake: Callable[[], None] = lambda: None
        """Called when ``look`` is to be called soon."""

    def __bool__(self) -> bool:
        return bool(self._expected)

    def add(
        self,
        parent: int,
        name: bytes,
        record: Record,
        socket: _socket.socket,
        address: bytes,
        call: Call,
    ) -> None:
        """Keep the record of a socket that the kernel is about to make, once it is there.

        ``parent`` is a descriptor of the directory, which stays the caller's to close, and
        ``name`` that of the socket in it. ``socket`` is the one to be bound, not bound so far,
        and closed by this, ``address`` the path that it is given by ``call``. Raises OSError:
        EMFILE.
        """
        try:
            new = _Expected(parent, name, record, socket, address, call)
        except BaseException:
            socket.close()
            raise
        with self._lock:
            del self._expected[: 1 - _LIMIT]
            self._expected.append(new)
        self.wake()

    def look(self) -> int | None:
        """Let go of the sockets of calls that are over; no file system is asked.

        Return when to call this next, in milliseconds; None is when ``wake`` says.
        """
        delays = []
        for one in list(self._expected):
            if one.is_pending and one.lock.acquire(False):
                try:
                    one.look()
                finally:
                    one.lock.release()
                if one.is_over:
                    self._remove(one)
            if one.is_pending:
                delays.append(one.delay)
                one.delay = min(2 * one.delay, _LAST)
        return min(delays) if delays else None

    def settle(self, device: int) -> None:
        """Keep the records of what was expected and is there, as far as it concerns a device."""
        for one in list(self._expected):
            # Another thread that is at it will have told soon. But who asks for other files is
            # not to wait for a file system that does not answer.
            if one.device in (None, device) and one.lock.acquire(True, _TURN):
                try:
                    one.look()
                    if not one.is_over and not one.is_pending:
                        one.is_over = self._is_settled(one)
                finally:
                    one.lock.release()
                if one.is_over:
                    self._remove(one)

    def release(self) -> None:
        """Let go of all directories but those of calls that are under way.

        What is held is in the way of who unmounts a file system.
        """
        for one in list(self._expected):
            if not one.lock.acquire(True, _TURN):
                continue
            try:
                # Before the look: a call that ends in between has made what is found.
                is_under_way = one.is_under_way()
                one.look()
                if not one.is_pending and not one.is_over:
                    self._is_settled(one)
                one.is_over = one.is_over or not one.is_pending or not is_under_way
            finally:
                one.lock.release()
            if one.is_over:
                self._remove(one)

    def _is_settled(self, one: _Expected) -> bool:
        """Keep the record of a socket; return whether there is nothing left to do for it."""
        try:
            file = open_child(one.parent, one.name)
            if file < 0:
                return False
            try:
                if one.fits(file, self._files):
                    self._keep(file, one.record)
            finally:
                os.close(file)
        except OSError:
            # No room for it, say; there may be later.
            return False
        return True

    def _remove(self, one: _Expected) -> None:
        with self._lock:
            if one in self._expected:
                self._expected.remove(one)


def address_of(socket: _socket.socket) -> bytes:
    """Return the address of a unix socket, nothing where it is not bound."""
    try:
        address = socket.getsockname()
    except OSError:
        return b""
    return address if isinstance(address, bytes) else os.fsencode(address)
