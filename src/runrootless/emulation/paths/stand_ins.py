"""What a descriptor of an emulated device node is about: the node, not the device behind it.

A caller that opens an emulated node gets the machine's own device, which others have open as
well, and which is the host's. So that the two are told apart, it is opened by way of a bind
mount that is attached nowhere, one for each node. An open file keeps its mount, whoever it is
passed on to, and however often it is duplicated; and as long as this process holds the mount,
its number is no other's.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from runrootless.emulation.apart import Apart
from runrootless.linux.files import Files, handle
from runrootless.linux.processes import open_mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeAlias

    Key: TypeAlias = tuple[int, int, int]

LIMIT = 256
"""For how many nodes two descriptors each are held."""


class StandIns:
    """Opens devices for nodes, and knows which node an open file stands for.

    That is known of the last 256 nodes. Any thread may call any method.
    """

    def __init__(self, files: Files, apart: Apart) -> None:
        self._files = files
        self._apart = apart
        self._lock = allocate_lock()
        # By st_dev, st_ino and the time of birth of a node, the oldest first.
        self._nodes: dict[Key, _Node] = {}
        # By the number of the mount.
        self._mounts: dict[int, _Node] = {}

    def open(self, node: int, device: int, mount: Callable[[], int], flags: int) -> int:
        """Return a new descriptor of an open device, which stands for an open node.

        ``mount`` returns a descriptor of a new mount of the device. Where there can be none, it
        stands for nothing. Raises OSError as open(2).
        """
        identity = self._files.identity(node)
        if identity is None:
            return os.open(handle(device), flags)
        status = os.fstat(device)
        place = status.st_dev, status.st_ino
        with self._lock:
            found = self._nodes.get(identity[1:])
            if found is None or found.device != place:
                try:
                    found = self._add(identity[1:], place, node, mount())
                except OSError:
                    return os.open(handle(device), flags)
            found.opened += 1
            return os.open(handle(found.mount), flags)

    def behind(self, file: int) -> int:
        """Return a descriptor of the node that an open file stands for, and close ``file``.

        ``file`` itself where it stands for none, as most do. Raises OSError.
        """
        if not self._mounts:
            return file
        number = self._files.mount(file)
        with self._lock:
            found = self._mounts.get(number)
            if found is None:
                return file
            node = os.dup(found.node)
        os.close(file)
        return node

    def release(self) -> None:
        """Let go of the nodes that no process has open.

        A descriptor of a node is in the way of who unmounts its file system. One that is on its
        way from process to process is the container's own device from then on.
        """
        if not self._nodes:
            return
        with self._lock:
            opened = {key: one.opened for key, one in self._nodes.items()}
        # What this process has opened it gives away: so it is looked at first. Its own mount is
        # one of them.
        own = open_mounts("self")
        used = {number for number in own if own.count(number) > 1}
        pid = os.getpid()
        for process in os.listdir("."):
            if process.isdigit() and int(process) != pid:
                used.update(open_mounts(process))
        with self._lock:
            for key, one in list(self._nodes.items()):
                if opened.get(key) == one.opened and one.number not in used:
                    self._forget(key)

    def _add(self, key: Key, device: tuple[int, int], node: int, mount: int) -> _Node:
        """Take note of a node and its mount, which this keeps. Raises OSError."""
        try:
            number = self._files.mount(mount)
            new = _Node(device, mount, number, os.dup(node))
        except BaseException:
            os.close(mount)
            raise
        if key in self._nodes:
            self._forget(key)
        while len(self._nodes) >= LIMIT:
            self._forget(next(iter(self._nodes)))
        # From now on descriptors of the device are looked at here, and not by the loop in C.
        self._apart.add(*device)
        self._nodes[key] = self._mounts[number] = new
        return new

    def _forget(self, key: Key) -> None:
        found = self._nodes.pop(key)
        del self._mounts[found.number]
        os.close(found.mount)
        os.close(found.node)


class _Node:
    """A node that a device stands for: st_dev and st_ino of that, its mount, and the node.

    Descriptors of both, and the mount's number. ``opened`` is how often it was.
    """

    __slots__ = ("device", "mount", "node", "number", "opened")

    def __init__(self, device: tuple[int, int], mount: int, number: int, node: int) -> None:
        self.device = device
        self.mount = mount
        self.number = number
        self.opened = 0
        self.node = node
