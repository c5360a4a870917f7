"""Where the names in a layer lead: directories in a root file system, never out of it.

Each component is opened by itself, from the descriptor of the one before, and symlinks are
followed as after chroot(2): so what a layer has put there leads nowhere else.
"""

from __future__ import annotations

import errno
import os

from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_LIMIT = 128
# As many as the kernel follows: path_resolution(7).
_SYMLINKS = 40
_PATH_LIMIT = 4096
"""PATH_MAX: the kernel takes no longer name."""


class Place:
    """A directory: open as ``fd``, ``path`` without symlinks from the root, ``b""`` for that.

    ``layer`` is the number of the last layer that has brought something below it.
    """

    __slots__ = ("fd", "inode", "layer", "name", "parent", "path")

    def __init__(self, fd: int, path: bytes, parent: Place | None, name: bytes) -> None:
        self.fd = fd
        self.path = path
        self.parent = parent
        self.name = name
        self.inode = os.fstat(fd).st_ino
        self.layer = -1


class Places:
    """The directories of a root file system, which is open as ``root``.

    ``made`` is told of each one that is made on the way: what it is made in, and itself, as
    O_PATH descriptors.
    """

    def __init__(self, root: int, made: Callable[[int, int], None]) -> None:
        self._made = made
        self.root = Place(root, b"", None, b"")
        self._open: dict[bytes, Place] = {}
        self._last: tuple[bytes, Place] | None = None

    def close(self) -> None:
        """Close all directories but the root."""
        self.forget()

    def forget(self) -> None:
        """Look anew, since a directory or a symlink is another one."""
        for place in self._open.values():
            os.close(place.fd)
        self._open.clear()
        self._last = None

    def find(self, path: bytes, make: bool) -> Place | None:
        """Return the directory at a path; what is missing is made, or else it is None.

        It is open until another one is looked for. Directories are made with mode 0755. Raises
        Error for a way that leads through what is no directory, and OSError.
        """
        if self._last is not None and self._last[0] == path:
            return self._last[1]
        if len(path) >= _PATH_LIMIT:
            raise Error(f"{_shown(path)} is too long a name")
        place = self.root
        pending = path.split(b"/")[::-1]
        symlinks = 0
        while pending:
            name = pending.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                pending += place.path.split(b"/")[:-1][::-1]
                place = self.root
                continue
            below = place.path + b"/" + name if place.path else name
            known = self._open.pop(below, None)
            if known is not None:
                # The last ones used are the last ones closed.
                self._open[below] = place = known
                continue
            try:
                fd = os.open(name, _PATH, dir_fd=place.fd)
            except FileNotFoundError:
                if not make:
                    return None
                os.mkdir(name, 0o755, dir_fd=place.fd)
                fd = os.open(name, _PATH, dir_fd=place.fd)
                self._made(place.fd, fd)
            except NotADirectoryError:
                try:
                    target = os.readlink(name, dir_fd=place.fd)
                except OSError:
                    if not make:
                        return None
                    raise Error(f"{_shown(below)} is no directory, and something in it") from None
                symlinks += 1
                if symlinks > _SYMLINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                if target.startswith(b"/"):
                    place = self.root
                pending += target.split(b"/")[::-1]
                continue
            place = self._remember(fd, below, place, name)
        self._last = path, place
        return place

    def _remember(self, fd: int, path: bytes, parent: Place, name: bytes) -> Place:
        place = Place(fd, path, parent, name)
        self._open[path] = place
        while len(self._open) > _OPEN_LIMIT:
            oldest = next(iter(self._open))
            closed = self._open.pop(oldest)
            os.close(closed.fd)
            if self._last is not None and self._last[1] is closed:
                self._last = None
        return place


def clean(name: bytes) -> bytes:
    """Return a name as a path from the root, without the first slash: ``..`` ends there."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _shown(path: bytes) -> str:
    return path[:200].decode("utf-8", "backslashreplace")
