"""What PID/status says of a process's IDs: proc_pid_status(5).

To the kernel all are root's, and it is read without a call that is intercepted. But ps(1)
and its relatives ask stat(2) for PID right before, so that is when a copy with the emulated
IDs is mounted on the file. From then on everything else in the copy is out of date, and
the mount may be in the way. So it is removed when its reader asks for the next process or
has ended, and after a second. A caller that opens the file in a way that is intercepted gets
a copy of its own.
"""

from __future__ import annotations

import errno
import os
from _thread import allocate_lock
from time import monotonic

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.callers.credentials import ROOT
from runrootless.emulation.paths.walk import open_child
from runrootless.linux import eventfd
from runrootless.linux.files import O_PATH
from runrootless.linux.libc import address
from runrootless.linux.mounts import (
    MNT_DETACH,
    MS_UNBINDABLE,
    UMOUNT_NOFOLLOW,
    attach_mount,
    clone_mount,
    mount,
    unmount,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.callers.credentials import Credentials, Ids

_NAME = b"/.runrootless-"
_SECONDS = 1
# As many as ``struct readers`` of native/loop_answers.h has room for.
_LIMIT = 64
_SIZE_LIMIT = 1 << 20
# File systems in memory, as containers have them. A file of theirs can be mounted as long
# as it has a name, which it has for a moment.
_PLACES = ("/dev/shm", "/dev")
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Readers:
    """At most so many threads, in memory at ``address``.

    ``struct readers`` of native/loop_answers.h.
    """

    def __init__(self, limit: int) -> None:
        memory = bytearray(4 * (1 + limit))
        self.address = address(memory)
        self._numbers = memoryview(memory).cast("I")

    def add(self, thread: int) -> None:
        """Add a thread. Raises ValueError where there is no room."""
        numbers = self._numbers[1:]
        if thread not in numbers:
            numbers[numbers.tolist().index(0)] = thread
            self._numbers[0] += 1

    def discard(self, thread: int) -> None:
        """Remove a thread, if it is there."""
        numbers = self._numbers[1:]
        if thread in numbers:
            numbers[numbers.tolist().index(thread)] = 0
            self._numbers[0] -= 1


class StatusFiles:
    """Shows a process's emulated IDs in its status file, to threads that are about to read it.

    The handlers of one container, and the thread that calls ``tidy``, share it.
    """

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._places: list[int] = []
        self.readers: dict[int, tuple[_Copy, float]] = {}
        """What is shown to each thread, and until when."""
        self.reading = Readers(_LIMIT)
        """The same threads, for those who cannot look there."""
        self._stopped = False
        self._is_awaited = False
        self.wakes = eventfd.eventfd()
        """Becomes readable when ``tidy`` is to be called."""

    def look(self) -> None:
        """Keep hold of places for the copies, once the agent has joined the container."""
        for path in _PLACES:
            try:
                self._places.append(os.open(path, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            except OSError:
                continue

    def remove_left(self) -> None:
        """Remove the mounts that another process has left, which has ended."""
        try:
            with open("self/mountinfo", "rb", buffering=0) as file:
                lines = file.readall().splitlines()
        except OSError:
            return
        for line in lines:
            # proc_pid_mountinfo(5).
            _, _, _, root, place, *_ = line.split(b" ")
            if _NAME in root and place.endswith(b"/status"):
                try:
                    unmount(_without_escapes(place), MNT_DETACH | UMOUNT_NOFOLLOW)
                except OSError:
                    # The process has ended, or something else is mounted above.
                    pass

    def show(self, call: Call, directory: int, credentials: Credentials) -> None:
        """Show credentials in a status file to the calling thread, which has left others.

        ``directory`` is a descriptor of the process's or thread's directory in the caller's
        procfs. What cannot be shown is left as the kernel has it.
        """
        if self._stopped or _shown_ids(credentials) == _shown_ids(ROOT):
            return
        status = -1
        try:
            status = open_child(directory, b"status")
            with self._lock:
                self._show(call, directory, status, credentials)
        except OSError:
            # The process has ended, or there is no room for the copy.
            pass
        finally:
            if status >= 0:
                os.close(status)

    def open_copy(self, status: int, credentials: Credentials) -> int | None:
        """Return a new descriptor to read a copy of a status file with these credentials.

        None where that would say what the file does. Raises OSError.
        """
        if _shown_ids(credentials) == _shown_ids(ROOT):
            return None
        with open(b"self/fd/%d" % status, "rb", buffering=0) as file:
            return open_text("status", _with_ids(file.read(_SIZE_LIMIT), credentials))

    def leave(self, reader: int) -> None:
        """Take note that a thread reads no longer what was shown to it."""
        with self._lock:
            self._leave(reader)

    def leave_ended(self) -> None:
        """Take note of the threads that have ended, before somebody looks at the mounts."""
        if self.readers:
            with self._lock:
                for reader in list(self.readers):
                    # Those that are only to be waited for have none.
                    if not os.path.exists(b"%d/root" % reader):
                        self._leave(reader)

    def remove(self) -> None:
        """Remove all mounts, before one may be in the way."""
        if self.readers:
            with self._lock:
                for reader in list(self.readers):
                    self._leave(reader)

    def stop(self) -> None:
        """Remove all mounts and make no others: namespaces would be made with copies of them."""
        self._stopped = True
        self.remove()

    def tidy(self) -> int | None:
        """Remove the mounts whose time is over.

        Return when to call this next, in milliseconds; None is when ``wakes`` says.
        """
        try:
            eventfd.take(self.wakes)
        except BlockingIOError:
            pass
        with self._lock:
            now = monotonic()
            for reader, (_, end) in list(self.readers.items()):
                if end <= now:
                    self._leave(reader)
            self._is_awaited = bool(self.readers)
            if not self._is_awaited:
                return None
            return 1 + int(1000 * (min(end for _, end in self.readers.values()) - now))

    def _show(self, call: Call, directory: int, status: int, credentials: Credentials) -> None:
        if len(self.readers) >= _LIMIT:
            return
        found = os.fstat(status)
        file = found.st_dev, found.st_ino
        for copy, _ in self.readers.values():
            if copy.file == file:
                copy.renew(credentials)
                break
        else:
            if found.st_dev != os.fstat(directory).st_dev:
                # Something else is mounted there.
                return
            require_valid(call)
            copy = self._mount(status, credentials)
        copy.readers += 1
        self.readers[call.pid] = copy, monotonic() + _SECONDS
        self.reading.add(call.pid)
        if not self._is_awaited:
            self._is_awaited = True
            eventfd.add(self.wakes)

    def _mount(self, status: int, credentials: Credentials) -> _Copy:
        name, file = self._new_file()
        try:
            copy = _Copy(status, file)
            try:
                copy.renew(credentials)
                copy.attach(status)
            except OSError:
                copy.remove()
                raise
        finally:
            try:
                os.unlink(name)
            except OSError:
                # Somebody in the container has done so.
                pass
        return copy

    def _new_file(self) -> tuple[bytes, int]:
        """Return the name and a descriptor of a new file. Raises OSError where it has no room."""
        failed = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        for place in self._places:
            name = b"self/fd/%d%b%b" % (place, _NAME, os.urandom(8).hex().encode())
            try:
                return name, os.open(name, _NEW_FILE, 0o444)
            except OSError as error:
                failed = error
        raise failed

    def _leave(self, reader: int) -> None:
        copy, _ = self.readers.pop(reader, (None, 0))
        self.reading.discard(reader)
        if copy is not None:
            copy.readers -= 1
            if not copy.readers:
                copy.remove()


def open_text(name: str, text: bytes) -> int:
    """Return a new descriptor to read a text in place of the file ``name``. Raises OSError."""
    file = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.fchmod(file, 0o444)
        os.write(file, text)
        return os.open(b"self/fd/%d" % file, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(file)


class _Copy:
    """A copy of a status file: how many read it, and what file it is.

    ``status`` is a place of the original, ``descriptor`` the copy's and its own from now on.
    Raises OSError.
    """

    def __init__(self, status: int, descriptor: int) -> None:
        self._descriptor = descriptor
        try:
            self._original = os.open(b"self/fd/%d" % status, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(descriptor)
            raise
        self._mount = -1
        self.readers = 0
        found = os.fstat(descriptor)
        self.file = found.st_dev, found.st_ino

    def renew(self, credentials: Credentials) -> None:
        """Copy what the kernel says now, with these credentials. Raises OSError."""
        text = _with_ids(os.pread(self._original, _SIZE_LIMIT, 0), credentials)
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))

    def attach(self, status: int) -> None:
        """Mount the copy on a file. Raises OSError."""
        self._mount = clone_mount(self._descriptor)
        attach_mount(self._mount, status)
        # Lest it is bound along with /proc.
        mount(None, b"self/fd/%d" % self._mount, None, MS_UNBINDABLE, None)

    def remove(self) -> None:
        """Unmount the copy, and close all descriptors."""
        try:
            if self._mount >= 0:
                unmount(b"self/fd/%d" % self._mount, MNT_DETACH)
        except OSError:
            # The process has ended, or somebody else has unmounted it.
            pass
        for fd in (self._original, self._descriptor, self._mount):
            if fd >= 0:
                os.close(fd)


def _without_escapes(path: bytes) -> bytes:
    """Return a path as it stands in mountinfo, without the octal escapes."""
    first, *others = path.split(b"\\")
    return first + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in others)


def _shown_ids(credentials: Credentials) -> tuple[Ids, Ids, tuple[int, ...]]:
    return credentials.uids, credentials.gids, credentials.groups


def _with_ids(text: bytes, credentials: Credentials) -> bytes:
    """Return the text of a status file with other IDs."""
    groups = b"".join(b"%d " % gid for gid in credentials.groups)
    shown = {
        b"Uid:": b"%d\t%d\t%d\t%d" % credentials.uids,
        b"Gid:": b"%d\t%d\t%d\t%d" % credentials.gids,
        b"Groups:": groups or b" ",
    }
    lines = []
    for line in text.split(b"\n"):
        key, tab, value = line.partition(b"\t")
        lines.append(key + tab + shown.get(key, value))
    return b"\n".join(lines)
