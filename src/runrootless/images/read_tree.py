"""What is in a root file system, as its container sees it.

Owners, the types of device nodes and most attributes are kept in records: see
docs/semantics.md, "Ownership". They are found as the agent finds them. Nothing is
followed on the way, so what a container that runs meanwhile does to the tree leads nowhere
else. This process is in /proc, as ``runrootless.linux.files`` wants it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager

from runrootless.emulation.apart import Apart
from runrootless.emulation.files.access_lists import AccessLists, is_access_list
from runrootless.emulation.files.attributes import Attributes, is_hidden, is_kept
from runrootless.emulation.owners.ownership import Ownership
from runrootless.emulation.stores.attribute_store import AttributeStore
from runrootless.emulation.stores.copied import is_copied
from runrootless.emulation.stores.owner_store import OwnerStore
from runrootless.linux.files import O_PATH, Files, handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runrootless.emulation.stores.side_store import SideStore

_PATH = O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CONTENT = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
_REFUSED = (errno.EACCES, errno.EPERM)

_CAPABILITY = b"security.capability"
# <linux/capability.h>: the revisions of the attribute, and the size of the second one.
_REVISION_MASK, _REVISION_2, _REVISION_3 = 0xFF000000, 0x02000000, 0x03000000
_CAPABILITY_SIZE = 20
# What the file system of the host keeps for itself is no attribute of an image's.
_NAMESPACES = (b"user.", b"trusted.", b"security.")
# Marks of ours, and of containers/storage, that say how a file is to be seen.
_MARKS = (
    b"user.runrootless-layer",
    b"user.runrootless-override",
    b"user.containers.override_stat",
)


class Found:
    """A file that is there: its ``path`` from the root, ``b""`` for that, and lstat(2) of it.

    ``directory`` and ``name`` are where it is, as long as the walk does not go on.
    """

    __slots__ = ("directory", "name", "path", "status")

    def __init__(self, path: bytes, directory: int, name: bytes, status: os.stat_result) -> None:
        self.path = path
        self.directory = directory
        self.name = name
        self.status = status


class Node:
    """What a container sees of a file, besides its content.

    ``mode`` is st_mode, ``mtime`` in nanoseconds, ``device`` st_rdev, ``target`` that of a
    symlink, and ``status`` what the kernel says of the file.
    """

    __slots__ = ("attributes", "device", "gid", "mode", "mtime", "size", "status", "target", "uid")

    def __init__(self, status: os.stat_result) -> None:
        self.status = status
        self.mode = status.st_mode
        self.uid = self.gid = 0
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        self.mtime = status.st_mtime_ns
        is_device = stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode)
        self.device = status.st_rdev if is_device else 0
        self.target = b""
        self.attributes: dict[bytes, bytes] = {}


class Tree:
    """A root file system. ``beginnings`` is what the paths of its side stores begin with.

    Raises OSError, for a root file system that cannot be opened.
    """

    def __init__(self, rootfs: str, beginnings: Sequence[str]) -> None:
        self._root = os.open(rootfs, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        device = os.fstat(self._root).st_dev
        self._files = Files()
        self.copies: list[str] = []
        """The paths of those side stores that are copies, and tell nothing of these files."""
        self._owner_store, self._attribute_store = OwnerStore(), AttributeStore()
        stores: tuple[tuple[SideStore, str], ...] = (
            (self._owner_store, "ownership"),
            (self._attribute_store, "attributes"),
        )
        for store, end in stores:
            file = _open_first([beginning + end for beginning in beginnings])
            if file >= 0:
                store.use(file, is_writable=False)
                if is_copied(file):
                    self.copies.append(os.fsdecode(os.readlink(handle(file))))
            store.open(device)
        self._ownership = Ownership(self._files, self._owner_store, Apart())
        self._attributes = Attributes(self._files, self._attribute_store)
        self._access_lists = AccessLists(self._files, self._attributes)
        self._carrying: dict[int, bool] = {}

    def walk(self, enters: Callable[[bytes], bool] = lambda path: True) -> Iterator[Found]:
        """Yield all files, directories before what is in them, by the bytes of their names.

        What is in directories is left out whose paths ``enters`` is not true of, which is asked
        when the next one is wanted. What goes meanwhile is left out as well. Raises OSError.
        """
        found = Found(b"", self._root, b".", os.fstat(self._root))
        yield found
        levels: list[_Level] = []
        try:
            if enters(b""):
                self._enter(levels, found)
            while levels:
                level = levels[-1]
                if not level.names:
                    levels.pop().leave()
                    continue
                name = level.names.pop()
                try:
                    status = os.stat(name, dir_fd=level.directory, follow_symlinks=False)
                except OSError as error:
                    if error.errno in _GONE:
                        continue
                    raise
                found = Found(level.prefix + name, level.directory, name, status)
                yield found
                if stat.S_ISDIR(status.st_mode) and enters(found.path):
                    self._enter(levels, found)
        finally:
            for level in reversed(levels):
                level.leave()

    def look(self, found: Found) -> Node | None:
        """Return what a container sees of a file that was just found, None if it has gone.

        Raises OSError.
        """
        with self.opened(found, False) as (node, _):
            return node

    @contextmanager
    def opened(self, found: Found, content: bool = True) -> Iterator[tuple[Node | None, int]]:
        """Have a file open that was just found, and know what a container sees of it.

        The descriptor is for reading a regular file, -1 of others or without ``content``. None
        stands for a file that has gone. Raises OSError.
        """
        try:
            file = os.open(found.name, _PATH, dir_fd=found.directory)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            yield None, -1
            return
        data = -1
        try:
            status = os.fstat(file)
            kept = _mode_to_restore(file, status)
            try:
                node = self._node(file, status)
                if content and stat.S_ISREG(node.mode):
                    data = _open_content(file)
            finally:
                if kept is not None:
                    os.chmod(handle(file), kept)
            yield node, data
        finally:
            os.close(file)
            if data >= 0:
                os.close(data)

    def _enter(self, levels: list[_Level], found: Found) -> None:
        kept = None
        path = -1
        try:
            try:
                directory = os.open(found.name, _DIRECTORY, dir_fd=found.directory)
                if not found.status.st_mode & stat.S_IXUSR:
                    os.stat(b".", dir_fd=directory)
            except OSError as error:
                if error.errno in _GONE:
                    return
                if error.errno not in _REFUSED:
                    raise
                path = os.open(found.name, _PATH | os.O_DIRECTORY, dir_fd=found.directory)
                kept = stat.S_IMODE(os.fstat(path).st_mode)
                os.chmod(handle(path), kept | stat.S_IRWXU)
                directory = os.open(handle(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            prefix = found.path + b"/" if found.path else b""
            levels.append(_Level(directory, prefix, path, kept))
            levels[-1].list()
        except OSError:
            if path >= 0 and not (levels and levels[-1].path == path):
                if kept is not None:
                    os.chmod(handle(path), kept)
                os.close(path)
            raise

    def _node(self, file: int, status: os.stat_result) -> Node:
        node = Node(status)
        mode, device, inode = status.st_mode, status.st_dev, status.st_ino
        listed = _listed(file)
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            if not listed and self._carries(device, file):
                # As most: what is kept of such a file is in its attributes.
                return node
        elif stat.S_ISLNK(mode):
            node.target = os.readlink(b"", dir_fd=file)
        record = self._ownership.find(file, mode, device, inode)
        if record is not None:
            node.uid, node.gid = record.uid, record.gid
            if record.device_type:
                node.mode = stat.S_IMODE(mode) | record.device_type
                node.device = record.device
                node.size = 0
        names = self._attributes.names(file) if listed is not None else []
        for name in listed or [] if names is None else names:
            value = self._attribute(file, name)
            if value is not None:
                node.attributes[name] = value
        return node

    def _attribute(self, file: int, name: bytes) -> bytes | None:
        if is_access_list(name):
            return self._access_lists.get(file, name)
        if name in _MARKS or is_hidden(name) or not name.startswith(_NAMESPACES):
            return None
        try:
            if is_kept(name):
                return self._attributes.get(file, name)
            value = os.getxattr(handle(file), name)
        except OSError as error:
            if error.errno == errno.ENODATA:
                return None
            raise
        return _of_namespace(value) if name == _CAPABILITY else value

    def _carries(self, device: int, file: int) -> bool:
        """Return whether files on a device carry what is kept of them."""
        if device not in self._carrying:
            self._carrying[device] = self._files.getxattr(file, b"user.") != -errno.EOPNOTSUPP
        return self._carrying[device]


class _Level:
    """A directory that is walked: ``names`` are those left in it, the next one at the end.

    ``path`` is a descriptor to give it its mode ``kept`` again, if that was changed.
    """

    __slots__ = ("_kept", "directory", "names", "path", "prefix")

    def __init__(self, directory: int, prefix: bytes, path: int, kept: int | None) -> None:
        self.directory = directory
        self.prefix = prefix
        self.path = path
        self._kept = kept
        self.names: list[bytes] = []

    def list(self) -> None:
        self.names = sorted(map(os.fsencode, os.listdir(self.directory)), reverse=True)

    def leave(self) -> None:
        os.close(self.directory)
        if self._kept is not None:
            os.chmod(handle(self.path), self._kept)
            os.close(self.path)


def _mode_to_restore(file: int, status: os.stat_result) -> int | None:
    """Let this process read a file; return the mode that it had if that was changed."""
    mode = status.st_mode
    if mode & stat.S_IRUSR or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return None
    if os.access(handle(file), os.R_OK, effective_ids=True):
        return None
    os.chmod(handle(file), stat.S_IMODE(mode) | stat.S_IRUSR)
    return stat.S_IMODE(mode)


def _open_content(file: int) -> int:
    try:
        return os.open(handle(file), _CONTENT | os.O_NOATIME)
    except PermissionError:
        # For the owner alone.
        return os.open(handle(file), _CONTENT)


def _listed(file: int) -> list[bytes] | None:
    """Return the names of a file's attributes, None where its file system has none."""
    try:
        return [os.fsencode(name) for name in os.listxattr(handle(file))]
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return None
        raise


def _of_namespace(value: bytes) -> bytes:
    """Return file capabilities as who is in the user namespace of theirs sees them.

    cap_inode_getsecurity() in security/commoncap.c.
    """
    magic = int.from_bytes(value[:4], "little")
    if magic & _REVISION_MASK != _REVISION_3:
        return value
    magic = magic & ~_REVISION_MASK | _REVISION_2
    return magic.to_bytes(4, "little") + value[4:_CAPABILITY_SIZE]


def _open_first(paths: Sequence[str]) -> int:
    """Return a descriptor of the first file that is there, -1 if none is. Raises OSError."""
    for path in paths:
        try:
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
    return -1
