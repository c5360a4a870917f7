"""Owners of pipes, sockets and memory files: those that no file system gives a name.

To the kernel they belong to the container's user, and the calls that make them are not
intercepted. One without a note belongs to the process that holds it, since fork(2) and
execve(2) pass descriptors on to processes of the same user. Before a process changes its user
or sends a descriptor, what it holds is noted as its own.
"""

from __future__ import annotations

import _socket
import os
from _thread import allocate_lock

from runrootless.emulation.apart import Apart
from runrootless.emulation.stores.lasting_map import LastingMap
from runrootless.linux.files import handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrootless.emulation.callers.credentials import Credentials

    Place = tuple[int, int]
    Owner = tuple[int, int]

_PIPE, _SOCKET, _MEMORY = b"pipe:[", b"socket:[", b"/memfd:"
# How many descriptors of a process are looked at; how many users' files are remembered, and how
# many of each: nobody has others' forgotten.
_DESCRIPTORS_LIMIT = 4096
_USERS_LIMIT = 256
_FILES_LIMIT = 4096
# How many of all the next worker gets to know of, should this one be killed.
_KEPT_LIMIT = 65536


class Makers:
    """Remembers makers of such files, by st_dev and st_ino. Any thread may call any method."""

    def __init__(self, apart: Apart) -> None:
        self._apart = apart
        self._lock = allocate_lock()
        self._known: dict[Place, Owner] = {}
        # By user: the same places, the oldest first.
        self._places: dict[int, dict[Place, None]] = {}
        self.kept = LastingMap("makers", _KEPT_LIMIT)
        self._pipes = self._sockets = self._memory = -1
        self.devices: frozenset[int] = frozenset()
        """st_dev of all such files."""

    def take_over(self) -> None:
        """Begin with what the worker before has kept, if there was one. Raises OSError."""
        self.kept.take_over()
        with self._lock:
            for (device, inode), (uid, gid) in self.kept.items():
                self._add((int(device), int(inode)), (uid, gid))

    def look(self) -> None:
        """Find out on which devices the kernel has such files. Raises OSError."""
        ends = os.pipe()
        memory = os.memfd_create("device")
        socket = _socket.socket(_socket.AF_UNIX)
        try:
            self._pipes = os.fstat(ends[0]).st_dev
            self._sockets = os.fstat(socket.fileno()).st_dev
            self._memory = os.fstat(memory).st_dev
        finally:
            socket.close()
            for fd in (*ends, memory):
                os.close(fd)
        self.devices = frozenset((self._pipes, self._sockets, self._memory))
        for device in self.devices:
            self._apart.add(device)

    def owner(self, device: int, inode: int, holder: Credentials) -> Owner:
        """Return the user and group ID of a file on one of the devices, which somebody holds."""
        return self._known.get((device, inode)) or (holder.uids[3], holder.gids[3])

    def give(self, device: int, inode: int, owner: Owner) -> None:
        """Take note that a file on one of the devices belongs to somebody from now on."""
        place = device, inode
        with self._lock:
            before = self._known.pop(place, None)
            if before is not None:
                self._places[before[0]].pop(place, None)
            self._remember(place, owner)

    def note_all(self, pid: int, maker: Credentials) -> None:
        """Note ``maker`` for all such files that a thread holds and that have no note yet."""
        try:
            names = os.listdir(b"%d/fd" % pid)
        except OSError:
            # It has ended.
            return
        self.note(pid, names[:_DESCRIPTORS_LIMIT], maker)

    def note(self, pid: int, descriptors: Iterable[bytes], maker: Credentials) -> None:
        """Do the same for some of a thread's descriptors, given by their numbers."""
        owner = maker.uids[3], maker.gids[3]
        for number in descriptors:
            self._note(b"%d/fd/%b" % (pid, number), owner)

    def note_at(self, directory: int, name: bytes, maker: Credentials) -> None:
        """Do the same for one descriptor, by the directory of them that a procfs has."""
        self._note(b"%b/%b" % (handle(directory), name), (maker.uids[3], maker.gids[3]))

    def _note(self, name: bytes, owner: Owner) -> None:
        place = self._place(name)
        if place is not None:
            with self._lock:
                if place not in self._known:
                    self._remember(place, owner)

    def _place(self, name: bytes) -> Place | None:
        """Return the device and the inode of a descriptor, None where it has another owner."""
        try:
            # Nobody is asked, as by stat(2), who may not answer.
            text = os.readlink(name)
            if text.startswith(_PIPE):
                return self._pipes, int(text[len(_PIPE) : -1])
            if text.startswith(_SOCKET):
                return self._sockets, int(text[len(_SOCKET) : -1])
            if text.startswith(_MEMORY):
                status = os.stat(name)
                if status.st_dev == self._memory:
                    return status.st_dev, status.st_ino
        except (OSError, ValueError):
            # Closed meanwhile.
            pass
        return None

    def _remember(self, place: Place, owner: Owner) -> None:
        self._add(place, owner)
        try:
            self.kept.set(place, owner)
        except OSError:
            # Without memory this worker alone knows of it.
            pass

    def _forget(self, place: Place) -> None:
        del self._known[place]
        try:
            self.kept.set(place, None)
        except OSError:
            pass

    def _add(self, place: Place, owner: Owner) -> None:
        user = owner[0]
        places = self._places.get(user)
        if places is None:
            if len(self._places) >= _USERS_LIMIT:
                # Not root's, which are most.
                oldest = next(other for other in self._places if other)
                for forgotten in self._places.pop(oldest):
                    self._forget(forgotten)
            places = self._places[user] = {}
        elif len(places) >= _FILES_LIMIT:
            forgotten = next(iter(places))
            del places[forgotten]
            self._forget(forgotten)
        places[place] = None
        self._known[place] = owner
