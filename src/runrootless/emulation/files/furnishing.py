"""The device nodes and fifos that the bundle wants, made before the container's program begins."""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.call import failure
from runrootless.emulation.files.nodes import make_device
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.stores.record import Record
from runrootless.linux.files import AT_FDCWD, RESOLVE_NO_MAGICLINKS, handle, is_procfs
from runrootless.linux.mounts import MNT_DETACH, clone_writable, mounted, unmount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Set

_DIRECTORY_MODE = 0o755
_PATH_MAX = 4096
# How many symlinks securejoin follows.
_LINKS_LIMIT = 255


class Node:
    """A node to make: ``mode`` is with the file type, ``device`` as in struct stat.

    ``replaces`` tells that it is made in the place of one that the runtime has bound.
    """

    __slots__ = ("device", "gid", "mode", "path", "replaces", "uid")

    def __init__(
        self, path: str, mode: int, device: int, uid: int, gid: int, replaces: bool = False
    ) -> None:
        self.path = path
        self.mode = mode
        self.device = device
        self.uid = uid
        self.gid = gid
        self.replaces = replaces


class Furnishing(Handlers):
    """Makes nodes in the root of this process, which has joined the container as one thread.

    ``outside`` are the file systems, by st_dev, of the mount namespace that the runtime began in.
    """

    def __init__(self, shared: Shared, outside: Set[int]) -> None:
        super().__init__(shared)
        self._outside = outside
        root = self._resolve(b"/", os.O_DIRECTORY)
        try:
            self._root = self._files.mount(root)
        finally:
            os.close(root)
        self._made: list[tuple[int, bytes, bool]] = []
        self._held: dict[tuple[int, int, int], int] = {}

    def make(self, node: Node) -> None:
        """Make a node as real root's runtime does; what is there already is left as it is.

        Directories on the way that are not there are root's. Raises OSError.
        """
        directory, names, is_there = self._walk(os.fsencode(node.path))
        try:
            if not names or (is_there and not (node.replaces and self._clear(names[0], directory))):
                return
            for name in names[:-1]:
                below = self._make_directory(name, directory)
                os.close(directory)
                directory = below
            self._change(directory, lambda parent: self._make(parent, names[-1], node))
            self._note(directory, names[-1], False)
        finally:
            os.close(directory)

    def undo(self) -> None:
        """Remove what has been made, as far as that can be."""
        for directory, name, is_directory in reversed(self._made):
            remove = os.rmdir if is_directory else os.unlink
            try:
                self._change(directory, lambda parent: remove(name, dir_fd=parent))  # noqa: B023
            except OSError:
                # It stays.
                continue
        self._made.clear()

    def show(self, node: Node) -> None:
        """Have the host's device at a path shown with another owner and mode. Raises OSError."""
        file = self._resolve(os.fsencode(node.path), 0)
        try:
            status = os.fstat(file)
            kinds = stat.S_IFMT(status.st_mode), stat.S_IFMT(node.mode)
            if kinds[0] != kinds[1] or status.st_rdev != node.device:
                # Something else has been mounted there.
                return
            birth = self._files.birth_time(file)
            self._ownership.give(status.st_dev, status.st_ino, birth, Record(node.uid, node.gid))
            self._host_files.set_mode(status, _without_set_id(node.mode))
        finally:
            os.close(file)

    def _make(self, parent: int, name: bytes, node: Node) -> None:
        kind, permissions = stat.S_IFMT(node.mode), _without_set_id(node.mode)
        record = Record(node.uid, node.gid)
        if kind == stat.S_IFBLK or (kind == stat.S_IFCHR and node.device):
            record = Record(node.uid, node.gid, kind, node.device)
            make_device(self._ownership, parent, name, permissions)
        else:
            # A fifo, or a whiteout, which everybody may make.
            os.mknod(name, kind | permissions, 0, dir_fd=parent)
        file = self._resolve(name, os.O_NOFOLLOW, parent)
        try:
            os.chmod(handle(file), permissions)
            self._ownership.keep_new(file, record)
        except BaseException:
            os.unlink(name, dir_fd=parent)
            raise
        finally:
            os.close(file)

    def _walk(self, path: bytes) -> tuple[int, list[bytes], bool]:
        """Return where a path leads in the container, as securejoin has it, which runc uses.

        That is the descriptor of a directory, names below it, and whether there is something: of
        just one name then. Symlinks are followed to what is not there as well, and ``..`` takes
        back a name that is not there. Without a name it is the directory. Raises OSError.
        """
        if len(path) >= _PATH_MAX:
            raise failure(errno.ENAMETOOLONG)
        if b"\0" in path:
            raise failure(errno.EINVAL)
        left = _components(path)
        missing: list[bytes] = []
        links = 0
        here = self._resolve(b"/", os.O_DIRECTORY)
        try:
            while left:
                name = left.pop()
                if missing:
                    if name == b"..":
                        missing.pop()
                    else:
                        missing.append(name)
                    continue
                try:
                    file = self._resolve(name, os.O_NOFOLLOW, here)
                except FileNotFoundError:
                    missing.append(name)
                    continue
                if stat.S_ISLNK(os.fstat(file).st_mode):
                    links += 1
                    target, file = self._read_link(name, file, here)
                    if links > _LINKS_LIMIT or len(target) >= _PATH_MAX:
                        raise failure(errno.ELOOP)
                    left += _components(target)
                    if not target.startswith(b"/"):
                        continue
                elif not left and name != b"..":
                    os.close(file)
                    return here, [name], True
                os.close(here)
                here = file
        except BaseException:
            os.close(here)
            raise
        return here, missing, False

    def _read_link(self, name: bytes, link: int, directory: int) -> tuple[bytes, int]:
        """Return where a symlink points to, whose descriptor this closes, and one of the root.

        Raises OSError: ELOOP for a magic link of a procfs.
        """
        try:
            if is_procfs(link):
                os.close(self._resolve(name, 0, directory))
            target = os.readlink(b"", dir_fd=link)
        finally:
            os.close(link)
        return target, self._resolve(b"/", os.O_DIRECTORY) if target[:1] == b"/" else -1

    def _make_directory(self, name: bytes, parent: int) -> int:
        """Return an O_PATH descriptor of a directory, made if need be. Raises OSError."""
        try:
            self._change(
                parent, lambda directory: os.mkdir(name, _DIRECTORY_MODE, dir_fd=directory)
            )
            self._note(parent, name, True)
        except FileExistsError:
            pass
        return self._resolve(name, os.O_DIRECTORY | os.O_NOFOLLOW, parent)

    def _clear(self, name: bytes, directory: int) -> bool:
        """Remove a device that the runtime has bound; return whether a node is to be made there.

        It is not where something else is there: real root's runtime would leave that. What the
        runtime binds on is an empty file; where it may be the user's as well it stays. Raises
        OSError.
        """
        mount = self._files.mount(directory)
        file = self._resolve(name, os.O_NOFOLLOW, directory)
        try:
            if self._files.mount(file) != mount and stat.S_ISCHR(os.fstat(file).st_mode):
                unmount(handle(file), MNT_DETACH)
        finally:
            os.close(file)
        file = self._resolve(name, os.O_NOFOLLOW, directory)
        try:
            status = os.fstat(file)
            if (
                self._files.mount(file) != mount
                or not stat.S_ISREG(status.st_mode)
                or status.st_size
                or self._ownership.find(file, status.st_mode, status.st_dev, status.st_ino)
            ):
                return False
        finally:
            os.close(file)
        if not self._is_own(directory):
            raise failure(errno.EEXIST)
        self._change(directory, lambda parent: os.unlink(name, dir_fd=parent))
        return True

    def _change(self, directory: int, change: Callable[[int], object]) -> None:
        """Change a directory, which may be on a mount that is read-only. Raises OSError.

        The runtime makes nodes before it makes mounts of its own read-only.
        """
        try:
            change(directory)
        except OSError as error:
            if error.errno != errno.EROFS or not self._is_own(directory):
                raise
            writable = clone_writable(directory)
            try:
                change(writable)
            finally:
                os.close(writable)

    def _is_own(self, directory: int) -> bool:
        """Return whether a directory is on the container's root, or on a tmpfs of its own.

        All others are bind mounts, or nothing that nodes can be made on: what is bound belongs to
        the user, and is read-only where the user wants that. Raises OSError.
        """
        mount = self._files.mount(directory)
        return mount == self._root or any(
            number == mount and kind == b"tmpfs" and device not in self._outside
            for number, device, kind in mounted()
        )

    def _note(self, directory: int, name: bytes, is_directory: bool) -> None:
        """Remember what has been made, to undo it. Raises OSError."""
        status = os.fstat(directory)
        key = self._files.mount(directory), status.st_dev, status.st_ino
        if key not in self._held:
            self._held[key] = os.dup(directory)
        self._made.append((self._held[key], name, is_directory))

    def _resolve(self, path: bytes, flags: int, parent: int = AT_FDCWD) -> int:
        file = self._files.resolve(parent, path, flags, RESOLVE_NO_MAGICLINKS)
        if file < 0:
            raise failure(-file)
        return file


def _components(path: bytes) -> list[bytes]:
    """Return the parts of a path, the last one first."""
    return [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]


def _without_set_id(mode: int) -> int:
    """Return the permissions that chown(2) leaves of what is no directory."""
    mode = stat.S_IMODE(mode) & ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP else mode
