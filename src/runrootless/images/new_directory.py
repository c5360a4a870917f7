"""The directory that a bundle is made in: it gets its name when all is there.

Until then it is beside that, under a name that begins with a dot, and locked. What nobody holds
the lock of is left by a process that was killed, and removed by the next one.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import os
import stat

from runrootless.bundle import json_file
from runrootless.containers import state
from runrootless.errors import Error
from runrootless.images import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_MARK = ".runrootless-bundle-"
# What tells a bundle that was made here, of which `bundle --force` removes the whole.
_IMAGE = "image.json"
_ROOTFS = "rootfs"
_AT_FDCWD = -100
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NewDirectory:
    """A directory that is to be ``path``; used as a context, it is removed unless ``finish``ed.

    ``fd`` is a descriptor of it. ``replace`` says that a bundle that is there goes. Raises Error
    where ``path`` cannot be, and OSError.
    """

    def __init__(self, path: str, replace: bool) -> None:
        path = os.path.abspath(path)
        self.path = path
        self._parent_path, self._name = os.path.split(path)
        self._replace = replace
        if not self._name:
            raise Error(f"{path} is no directory for a bundle: name one that is not there")
        try:
            self._parent = os.open(self._parent_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Error(
                f"{path} cannot be made: {self._parent_path}: {error.strerror}: make that first"
            ) from None
        self._check()
        self._collect()
        self.name = ""
        """The name that it has until it is finished."""

    def __enter__(self) -> NewDirectory:
        while True:
            name = f"{_MARK}{os.urandom(6).hex()}"
            try:
                os.mkdir(name, 0o700, dir_fd=self._parent)
                self.fd = os.open(name, _OPEN, dir_fd=self._parent)
            except FileNotFoundError:
                # Taken for one that was left, before it is locked.
                continue
            except OSError as error:
                raise Error(
                    f"{self.path} cannot be made: {error.strerror}: choose another directory"
                ) from None
            self.name = name
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            if os.fstat(self.fd).st_nlink:
                break
            os.close(self.fd)
        # Neither the group nor the bit that passes it on is to come from above.
        os.fchown(self.fd, -1, os.getegid())
        # Set-user-ID programs of the image are real ones of the user's: nobody else gets there.
        os.fchmod(self.fd, 0o700)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.name:
            tree.remove(self.name, self._parent)
        os.close(self.fd)
        os.close(self._parent)

    def finish(self) -> None:
        """Give it its name. Raises Error where something else has it by now, and OSError."""
        try:
            self._rename(_RENAME_NOREPLACE)
        except FileExistsError:
            # Looked at again: it may be another one by now.
            self._check()
            self._rename(_RENAME_EXCHANGE)
            # What was there before has that name now.
            name, self.name = self.name, ""
            try:
                tree.remove(name, self._parent)
            except OSError as error:
                raise Error(
                    f"{self.path} is made, but what was there before cannot be removed, and is "
                    f"{os.path.join(self._parent_path, name)} now: {error.strerror}"
                ) from None
        self.name = ""

    def _rename(self, flags: int) -> None:
        # Not os.rename, which replaces an empty directory.
        library = ctypes.CDLL(None, use_errno=True)
        done = library.renameat2(
            self._parent, self.name.encode(), self._parent, os.fsencode(self._name), flags
        )
        if done == 0:
            return
        number = ctypes.get_errno()
        if number != errno.EINVAL:
            raise OSError(number, os.strerror(number), self.path)
        # A file system without these flags.
        if flags == _RENAME_EXCHANGE:
            tree.remove(self._name, self._parent)
        elif os.path.lexists(self.path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.path)
        os.rename(self.name, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)

    def _check(self) -> None:
        """Raise Error where something is in the way."""
        try:
            mode = os.lstat(self._name, dir_fd=self._parent).st_mode
        except FileNotFoundError:
            return
        if not self._replace:
            raise Error(f"{self.path} is there already: --force replaces a bundle")
        if not stat.S_ISDIR(mode):
            raise Error(f"{self.path} is no directory, and not replaced: remove it")
        directory = os.open(self._name, _OPEN, dir_fd=self._parent)
        try:
            names = os.listdir(directory)
            if os.fstat(directory).st_uid != os.geteuid() or (
                names and not _is_made_here(directory)
            ):
                raise Error(f"{self.path} is no bundle of `runrootless bundle`: remove it yourself")
            if any(_is_used(directory, name) for name in names if name.startswith(".rootfs.")) or (
                _has_container(self.path)
            ):
                raise Error(f"a container uses {self.path}: end it first")
        finally:
            os.close(directory)

    def _collect(self) -> None:
        """Remove what is left of processes that were killed."""
        with os.scandir(self._parent) as entries:
            left = [entry.name for entry in entries if entry.name.startswith(_MARK)]
        for name in left:
            try:
                fd = os.open(name, _OPEN, dir_fd=self._parent)
            except OSError:
                continue
            try:
                if os.fstat(fd).st_uid == os.geteuid():
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    tree.remove(name, self._parent)
            except OSError:
                # It is being made.
                pass
            finally:
                os.close(fd)


def _is_made_here(directory: int) -> bool:
    """Return whether a directory is a bundle that was made of an image."""
    try:
        os.stat(f"{_ROOTFS}/.", dir_fd=directory)
        value = json_file.read(f"/proc/self/fd/{directory}/{_IMAGE}")
    except (OSError, Error):
        return False
    return isinstance(value, dict) and "version" in value and "layers" in value


def _has_container(path: str) -> bool:
    """Return whether there is a container with its root file system in a directory."""
    inside = os.path.join(os.path.realpath(path), "")
    for base in state.base_directories():
        # Those under PRoot alone are two levels further down.
        for pattern in ("*", f"{state.PROOT}/*/*"):
            for config in glob.glob(f"{glob.escape(base)}/{pattern}/{state.CONFIG}"):
                try:
                    root = json_file.read(config)["root"]["path"]
                except (OSError, Error, KeyError, TypeError):
                    continue
                if os.path.join(os.path.realpath(root), "").startswith(inside):
                    return True
    return False


def _is_used(directory: int, name: str) -> bool:
    """Return whether the agent of a container has a side store open: ``agent/side_files.py``."""
    try:
        fd = os.open(
            name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    except OSError:
        return False
    try:
        # A byte beyond all others.
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1 << 40)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    finally:
        os.close(fd)
    return False
