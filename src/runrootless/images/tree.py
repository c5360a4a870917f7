"""Directories of ours: walking and removing them, whatever modes and depth they have.

One descriptor is enough for any depth: ``..`` leads back, and it is compared with where that was
come from, since somebody who may write there can move a directory meanwhile. Nothing is done in
other mounts. Directories are the user's, who may lack permissions that he can give himself.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PARENT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def _above(directory: int, expected: tuple[int, int]) -> int:
    """Return a descriptor of the directory above. Raises OSError where that is another one."""
    above = os.open("..", _PARENT, dir_fd=directory)
    if _identity(above) != expected:
        os.close(above)
        raise OSError(errno.ESTALE, "somebody else moves directories there")
    return above


def _identity(directory: int) -> tuple[int, int]:
    status = os.fstat(directory)
    return status.st_dev, status.st_ino


def _require_mount(directory: int, mount: bytes, name: bytes) -> None:
    """Raise OSError where a directory is in another mount."""
    if _mount(directory) != mount:
        raise OSError(errno.EBUSY, "a file system is mounted there", name)


def _mount(directory: int) -> bytes:
    """Return the number of the mount that a directory is in: proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{directory}", "rb", buffering=0) as file:
        return file.read(4096).partition(b"mnt_id:")[2].split(maxsplit=1)[0]


def open_directory(name: bytes | str, parent: int) -> int:
    """Return a descriptor of a directory, which is made accessible if it is not.

    Raises OSError: ENOTDIR for anything else.
    """
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        status = os.lstat(name, dir_fd=parent)
        if not stat.S_ISDIR(status.st_mode):
            raise
        os.chmod(name, stat.S_IMODE(status.st_mode) | 0o700, dir_fd=parent)
        return os.open(name, _DIRECTORY, dir_fd=parent)


def remove(name: bytes | str, parent: int) -> None:
    """Remove a file, or a directory with all that is in it. Raises OSError."""
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
            raise
    _empty(name, parent)
    os.rmdir(name, dir_fd=parent)


def _empty(name: bytes | str, parent: int) -> None:
    current = open_directory(name, parent)
    try:
        mount = _mount(current)
        _require_mount(parent, mount, os.fsencode(name))
        # Of each directory on the way down: its name, what it is, and which are left in it.
        left = [(b"", _identity(current), _remove_files(current))]
        while True:
            _, _, directories = left[-1]
            if directories:
                child = directories.pop()
                below = open_directory(child, current)
                os.close(current)
                current = below
                _require_mount(current, mount, child)
                left.append((child, _identity(current), _remove_files(current)))
                continue
            if len(left) == 1:
                return
            done, _, _ = left.pop()
            above = _above(current, left[-1][1])
            os.close(current)
            current = above
            os.rmdir(done, dir_fd=current)
    finally:
        os.close(current)


def _remove_files(directory: int) -> list[bytes]:
    """Remove all files in a directory; return the names of the directories in it."""
    status = os.fstat(directory)
    if status.st_mode & 0o700 != 0o700:
        os.fchmod(directory, stat.S_IMODE(status.st_mode) | 0o700)
    directories: list[bytes] = []
    with os.scandir(directory) as entries:
        found = [(os.fsencode(one.name), one.is_dir(follow_symlinks=False)) for one in entries]
    for name, is_directory in found:
        if is_directory:
            directories.append(name)
        else:
            os.unlink(name, dir_fd=directory)
    return directories


def leave_directories(root: int, leave: Callable[[int, int], None]) -> None:
    """Call ``leave`` for all directories in ``root`` and for itself, those in it first.

    It is told a descriptor and the inode number. Raises OSError.
    """
    current = os.dup(root)
    try:
        left = [(os.fstat(current).st_ino, _identity(current), _directories(current))]
        while True:
            inode, _, directories = left[-1]
            if directories:
                name, below_inode = directories.pop()
                below = os.open(name, _DIRECTORY, dir_fd=current)
                os.close(current)
                current = below
                left.append((below_inode, _identity(current), _directories(current)))
                continue
            left.pop()
            if not left:
                leave(current, inode)
                return
            above = _above(current, left[-1][1])
            leave(current, inode)
            os.close(current)
            current = above
    finally:
        os.close(current)


def _directories(directory: int) -> list[tuple[bytes, int]]:
    with os.scandir(directory) as entries:
        return [
            (os.fsencode(one.name), one.inode())
            for one in entries
            if one.is_dir(follow_symlinks=False)
        ]
