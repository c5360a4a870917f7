"""The device nodes and fifos that the bundle wants, made before the container's program begins."""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.call import failure
from runrootless.emulation.files.nodes import make_device
from runrootless.emulation.handlers import Handlers
from runrootless.emulation.stores.record import Record
from runrootless.linux.files import AT_FDCWD, RESOLVE_NO_MAGICLINKS, handle
from runrootless.linux.mounts import MNT_DETACH, UMOUNT_NOFOLLOW, clone_writable, unmount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DIRECTORY_MODE = 0o755


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
    """Makes nodes in the root of this process, which has joined the container as one thread."""

    def make(self, node: Node) -> None:
        """Make a node as real root's runtime does; what is there already is left as it is.

        Directories on the way that are not there are root's. Raises OSError.
        """
        path = os.fsencode(node.path).rstrip(b"/")
        try:
            os.close(self._resolve(path, os.O_NOFOLLOW))
        except FileNotFoundError:
            pass
        else:
            if not node.replaces:
                return
            # The runtime's own, which the bundle's goes before.
            unmount(path, MNT_DETACH | UMOUNT_NOFOLLOW)
        before, _, name = path.rpartition(b"/")
        parent = self._directory(before or b"/")
        try:
            if node.replaces:
                _change(parent, lambda directory: _unlink(name, directory))
            _change(parent, lambda directory: self._make(directory, name, node))
        except FileExistsError:
            pass
        finally:
            os.close(parent)

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

    def _directory(self, path: bytes) -> int:
        """Return an O_PATH descriptor of a directory, made if need be. Raises OSError."""
        try:
            return self._resolve(path, os.O_DIRECTORY)
        except FileNotFoundError:
            before, _, name = path.rstrip(b"/").rpartition(b"/")
        parent = self._directory(before or b"/")
        try:
            try:
                _change(parent, lambda directory: _make_directory(name, directory))
            except FileExistsError:
                pass
            return self._resolve(name, os.O_DIRECTORY, parent)
        finally:
            os.close(parent)

    def _resolve(self, path: bytes, flags: int, parent: int = AT_FDCWD) -> int:
        file = self._files.resolve(parent, path, flags, RESOLVE_NO_MAGICLINKS)
        if file < 0:
            raise failure(-file)
        return file


def _change(parent: int, change: Callable[[int], object]) -> None:
    """Change a directory, which may be on a mount that is read-only. Raises OSError.

    The runtime makes nodes before it makes mounts read-only.
    """
    try:
        change(parent)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        writable = clone_writable(parent)
        try:
            change(writable)
        finally:
            os.close(writable)


def _unlink(name: bytes, directory: int) -> None:
    os.unlink(name, dir_fd=directory)


def _make_directory(name: bytes, directory: int) -> None:
    os.mkdir(name, _DIRECTORY_MODE, dir_fd=directory)


def _without_set_id(mode: int) -> int:
    """Return the permissions that chown(2) leaves of what is no directory."""
    mode = stat.S_IMODE(mode) & ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP else mode
