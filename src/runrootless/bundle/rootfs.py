"""Looking into a root file system without leaving it.

What is in a root file system belongs to the container, which may be running and
hostile: a symlink in it means a path in it, as it would after chroot(2).  The
kernel has openat2(2) with RESOLVE_IN_ROOT for that, but Python has not.
"""

from __future__ import annotations

import os
from errno import ELOOP, ENOENT
from stat import S_ISDIR, S_ISLNK, S_ISREG

# As many as the kernel follows: path_resolution(7).
_MAXIMUM_SYMLINKS = 40
_MAXIMUM_FILE_SIZE = 16 << 20


class Place:
    """Where a path ends: the directory, the name in it, and what is there.

    ``directory`` is an O_PATH file descriptor, which ``close`` closes; ``name``
    is never a symlink.  ``mode`` is the ``st_mode`` of the file, ``None`` if
    nothing is there.  ``missing`` lists the directories that would have to be
    made below ``directory`` before ``name`` could be.
    """

    __slots__ = ("directory", "missing", "mode", "name")

    def __init__(self, directory: int, name: str, mode: int | None, missing: list[str]) -> None:
        self.directory = directory
        self.name = name
        self.mode = mode
        self.missing = missing

    def close(self) -> None:
        """Close the directory."""
        os.close(self.directory)

    def make_missing(self) -> None:
        """Make the missing directories; ``directory`` is the last one then. Raises OSError."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
        while self.missing:
            name = self.missing[0]
            try:
                os.mkdir(name, 0o755, dir_fd=self.directory)
            except FileExistsError:
                # Another container of this root file system has been faster.
                pass
            made = os.open(name, flags, dir_fd=self.directory)
            os.close(self.directory)
            self.directory = made
            del self.missing[0]


def find(root: str, path: str) -> Place:
    """Return where ``path`` ends in the root file system ``root``.

    All symlinks are followed, the last one too, none of them out of ``root``.
    Raises ``OSError``: ELOOP, ENOTDIR, EACCES and ENAMETOOLONG as open(2) does,
    and for a ``root`` that cannot be opened; a path that does not exist is no error.
    """
    # The directories from the root down to where the walk is: ".." pops one, so
    # that a directory moved meanwhile cannot lead above the root.
    stack = [os.open(root, os.O_PATH | os.O_DIRECTORY)]
    missing: list[str] = []
    mode: int | None = None
    name = "."
    symlinks = 0
    try:
        rest = _components(path)
        while rest:
            name = rest.pop()
            if name == "..":
                if missing:
                    missing.pop()
                elif len(stack) > 1:
                    os.close(stack.pop())
                name, mode = ".", None
                continue
            if missing:
                missing.append(name)
                continue
            try:
                mode = os.lstat(name, dir_fd=stack[-1]).st_mode
            except FileNotFoundError:
                mode = None
                missing.append(name)
                continue
            if S_ISLNK(mode):
                symlinks += 1
                if symlinks > _MAXIMUM_SYMLINKS:
                    raise OSError(ELOOP, os.strerror(ELOOP), path)
                target = os.readlink(name, dir_fd=stack[-1])
                if target.startswith("/"):
                    while len(stack) > 1:
                        os.close(stack.pop())
                rest += _components(target)
                name, mode = ".", None
            elif rest or S_ISDIR(mode):
                flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
                stack.append(os.open(name, flags, dir_fd=stack[-1]))
                name = "."
        if missing:
            name = missing.pop()
            mode = None
        elif name == ".":
            mode = os.fstat(stack[-1]).st_mode
        return Place(stack.pop(), name, mode, missing)
    finally:
        for directory in stack:
            os.close(directory)


def _components(path: str) -> list[str]:
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def read_text(root: str, path: str) -> str:
    """Return the text of the regular file ``path`` in the root file system ``root``.

    Bytes that are not UTF-8 are kept as surrogates.  Raises ``OSError`` as
    ``find`` does, ENOENT if there is no such regular file.
    """
    place = find(root, path)
    try:
        if place.mode is None or not S_ISREG(place.mode):
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path)
        # O_NONBLOCK: it may have become a FIFO since it was looked at.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        file = os.open(place.name, flags, dir_fd=place.directory)
    finally:
        place.close()
    try:
        if not S_ISREG(os.fstat(file).st_mode):
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path)
        chunks = []
        size = 0
        while size < _MAXIMUM_FILE_SIZE and (chunk := os.read(file, 1 << 20)):
            chunks.append(chunk)
            size += len(chunk)
    finally:
        os.close(file)
    return b"".join(chunks).decode("utf-8", "surrogateescape")
