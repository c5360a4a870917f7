"""The files of the side stores: found, checked and made before the container starts.

The command reports an error in one of them while somebody reads its output. The agent gets
the files as open descriptors.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys

from runrootless.emulation.stores.copied import is_copied, warning
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

NAMES = ("ownership", "attributes")
"""How the names of the files end."""

_MAXIMUM_SIZE = 1 << 27
"""No side store becomes as large, in bytes: see LIMIT in the modules of the stores."""

_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
# What a file begins with (the first line of a journal), in which the device is NO_DEVICE.
_BEGINNINGS = (b"\xff" * 8, b"\n" + b"/" * 8)
_SAMPLE = 1 << 16
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symlink",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_USE = "owners of symlinks and special files are kept there"


class SideFile:
    """An open file: ``fd``, its ``name`` in the directory that is open as ``directory``.

    It is in use as long as any copy of ``fd`` is open.
    """

    __slots__ = ("directory", "fd", "is_writable", "name")

    def __init__(self, directory: int, name: str, fd: int, is_writable: bool) -> None:
        self.directory = directory
        self.name = name
        self.fd = fd
        self.is_writable = is_writable

    def leave(self) -> None:
        """Remove the file if nothing was ever kept in it, and nobody else uses it."""
        try:
            _lock(self.fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK)
            if os.fstat(self.fd).st_size == 0:
                os.unlink(self.name, dir_fd=self.directory)
            _lock(self.fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK)
        except OSError:
            # It may stay: an empty file is as good.
            pass


def open_side_files(
    beginnings: Sequence[str],
    rootfs: str,
    warn: Callable[[str], None],
    explain: Callable[[str], None] | None = None,
) -> dict[str, SideFile]:
    """Open the files whose paths begin with the first of ``beginnings``; make what is not there.

    The next of ``beginnings`` counts where they cannot be made. They are returned by the ends of
    their names. One that cannot be made at all is left out, which ``warn`` is told if anything
    could be made in ``rootfs``; where that is empty, it must be made. It is also told of one that
    is a copy. ``explain`` is told where not the first of ``beginnings`` is taken. Raises Error for
    what is there and is no side store of the caller's, and OSError.
    """
    found: dict[str, SideFile] = {}
    refusals: list[str] = []
    try:
        for beginning in beginnings:
            try:
                _open_beginning(beginning, found)
                for name, file in found.items():
                    # What a user's own are about is elsewhere, and was not copied with them.
                    if rootfs and is_copied(file.fd):
                        warn(warning(f"{beginning}{name}"))
                if refusals and explain is not None:
                    explain(f"{refusals[0]}: {beginning}{NAMES[-1]} is taken")
                return found
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                    raise
                name = f"{beginning}{NAMES[len(found)]}"
                refusals.append(f"cannot make {name}: {error.strerror}: {_USE}")
        if not rootfs:
            raise Error(f"{refusals[0]}: set XDG_DATA_HOME to a directory of your own")
    except BaseException:
        for file in found.values():
            file.leave()
        raise
    if os.access(rootfs, os.W_OK):
        warn(f"{refusals[0]}, and will be root's again when the container has ended")
    return found


def _open_beginning(beginning: str, found: dict[str, SideFile]) -> None:
    """Add to ``found`` what is not there yet. Raises Error, OSError."""
    parent, name = os.path.split(beginning)
    directory = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    before = len(found)
    try:
        for end in NAMES:
            if end not in found:
                found[end] = _open(directory, parent, name + end)
    finally:
        if len(found) == before:
            os.close(directory)


def _open(directory: int, parent: str, name: str) -> SideFile:
    path = os.path.join(parent, name)
    while True:
        is_writable = True
        try:
            status = os.lstat(name, dir_fd=directory)
        except FileNotFoundError:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN
                fd = os.open(name, flags, 0o600, dir_fd=directory)
            except FileExistsError:
                continue
        else:
            _check_kind(path, status)
            try:
                fd = os.open(name, os.O_RDWR | _OPEN, dir_fd=directory)
            except FileNotFoundError:
                continue
            except OSError:
                is_writable = False
                fd = _open_to_read(directory, name, path)
        try:
            _check_kind(path, os.fstat(fd))
            _check_content(path, fd)
            try:
                _lock(fd, fcntl.F_OFD_SETLKW, fcntl.F_RDLCK)
            except OSError:
                # Some NFS and Lustre, where nobody can remove it then.
                pass
            if os.fstat(fd).st_nlink:
                return SideFile(directory, name, fd, is_writable)
        except BaseException:
            os.close(fd)
            raise
        # Its last user has removed it in the meantime.
        os.close(fd)


def _open_to_read(directory: int, name: str, path: str) -> int:
    try:
        return os.open(name, os.O_RDONLY | _OPEN, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        raise Error(f"cannot read {path}: {error.strerror}: {_USE}") from None


def _check_kind(path: str, status: os.stat_result) -> None:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is not None:
        raise _no_side_store(path, f"is {kind}")
    if status.st_uid != os.geteuid():
        raise _no_side_store(path, f"belongs to user {status.st_uid}")
    if status.st_size > _MAXIMUM_SIZE:
        raise _no_side_store(path, f"has {status.st_size} bytes, more than it ever could")


def _check_content(path: str, fd: int) -> None:
    beginning = os.pread(fd, len(_BEGINNINGS[1]), 0)
    if not beginning or beginning.startswith(_BEGINNINGS):
        return
    # Damaged, made by a version without such first lines, or something else.
    from runrootless.emulation.stores.attribute_store import is_beginning as is_of_attributes
    from runrootless.emulation.stores.owner_store import is_beginning as is_of_owners

    sample = os.pread(fd, _SAMPLE, 0)
    is_beginning = is_of_owners if path.endswith(NAMES[0]) else is_of_attributes
    if not is_beginning(sample):
        raise _no_side_store(path, "has something else in it")


def _no_side_store(path: str, objection: str) -> Error:
    return Error(f"{path} {objection}: {_USE}: move it away")


def _lock(fd: int, command: int, kind: int) -> None:
    """Lock a file for as long as any copy of the descriptor is open. Raises OSError.

    That is a byte beyond all others: the stores lock the first one, and on NFS locks of all
    kinds are one.
    """
    order: Literal["little", "big"] = sys.byteorder
    # struct flock: fcntl(2).
    words = ((kind, 2), (os.SEEK_SET, 2), (0, 4), (1 << 40, 8), (1, 8), (0, 8))
    lock = b"".join(value.to_bytes(size, order) for value, size in words)
    fcntl.fcntl(fd, command, lock)
