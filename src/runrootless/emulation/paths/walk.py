"""Following a path one component at a time, as path_resolution(7) describes it.

For what the kernel cannot be asked in one call: who may search the directories on the way,
where a file would be made, and ways through a procfs, whose links depend on who follows them.
"""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.paths.procfs import ROOT_INODE, Procfs
from runrootless.emulation.paths.stand_ins import StandIns
from runrootless.linux.capabilities import capabilities, set_effective
from runrootless.linux.files import (
    O_PATH,
    RESOLVE_NO_MAGICLINKS,
    ST_NOSYMFOLLOW,
    Files,
    is_procfs,
)
from runrootless.linux.mounts import clone_mount
from runrootless.linux.processes import shares_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeAlias

    Search: TypeAlias = Callable[[int, os.stat_result], None]
    Follow: TypeAlias = Callable[[int, int], None]
    Jump: TypeAlias = Callable[[int], None]

_LINKS_LIMIT = 40
"""``MAXSYMLINKS`` of <linux/namei.h>."""

_HERE = O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW
_THERE = O_PATH | os.O_CLOEXEC
# What open_tree(2) says where a filter or a kernel does not let the agent have it.
_NO_CLONES = (errno.EPERM, errno.ENOSYS)


class Nowhere(OSError):
    """A path leads nowhere; the error is what the kernel says of it."""


class Found:
    """The end of a path: O_PATH descriptors, -1 where there is none. A context closes them.

    ``file`` is what it leads to, and ``parent`` the directory in which that is called
    ``name``; ``slash`` tells that the path ends with one.
    """

    __slots__ = ("file", "name", "parent", "slash")

    def __init__(self, parent: int, name: bytes, file: int, slash: bool = False) -> None:
        self.parent = parent
        self.name = name
        self.file = file
        self.slash = slash

    def __enter__(self) -> Found:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self.parent, self.file):
            if fd >= 0:
                os.close(fd)
        self.parent = self.file = -1

    def has_room(self) -> bool:
        """Return whether a file could be made here: there is a directory, and none of the name."""
        return self.file < 0 and self.parent >= 0

    def take_file(self) -> int:
        """Return the descriptor of the file, which is the receiver's to close."""
        file, self.file = self.file, -1
        return file


class Walk:
    """Walks paths in the caller's name."""

    def __init__(self, files: Files, procfs: Procfs, stand_ins: StandIns) -> None:
        self._files = files
        self._procfs = procfs
        self._stand_ins = stand_ins
        self.borrow: Callable[[int, bytes], None] | None = None
        """Called before a magic link of another process is followed: its directory and name."""

    def follow(
        self,
        caller: int,
        start: int,
        path: bytes,
        follows: bool,
        search: Search | None = None,
        follow: Follow | None = None,
        jump: Jump | None = None,
    ) -> Found:
        """Return where a path leads from a directory, whose descriptor this closes.

        ``follows`` tells whether a symlink at the end is followed. ``search`` is called with
        each directory that is looked into, ``follow`` with the directory and the symlink where
        the last component is one that is followed, ``jump`` with the directory in a procfs where
        a magic link is followed. Raises Nowhere, and what these raise.
        """
        steps = _Steps(self._files, self._procfs, caller, start, path, follows)
        try:
            steps.search, steps.follow, steps.jump = search, follow, jump
            steps.borrow, steps.behind = self.borrow, self._stand_ins.behind
            return steps.run()
        finally:
            steps.close()


class _Steps:
    """One walk, and the descriptors that it holds."""

    def __init__(
        self, files: Files, procfs: Procfs, caller: int, start: int, path: bytes, follows: bool
    ) -> None:
        self._files = files
        self._procfs = procfs
        self._caller = caller
        self._parts = path.split(b"/")[::-1]
        self._slash = path.endswith(b"/")
        self._follows = follows
        self._parent, self._current, self._name = -1, start, b""
        self._links = 0
        self.search: Search | None = None
        self.follow: Follow | None = None
        self.borrow: Callable[[int, bytes], None] | None = None
        self.jump: Jump | None = None
        self.behind: Callable[[int], int] | None = None

    def run(self) -> Found:
        while self._parts:
            part = self._parts.pop()
            if part and not self._step(part):
                break
        if self._slash and self._current >= 0 and not is_open_directory(self._current):
            raise _nowhere(errno.ENOTDIR)
        found = Found(self._parent, self._name, self._current, self._slash)
        self._parent = self._current = -1
        return found

    def close(self) -> None:
        for fd in (self._parent, self._current):
            if fd >= 0:
                os.close(fd)
        self._parent = self._current = -1

    def _step(self, part: bytes) -> bool:
        """Go one component further; return False where it is the last one and not there."""
        status = os.fstat(self._current)
        if not stat.S_ISDIR(status.st_mode):
            raise _nowhere(errno.ENOTDIR)
        self._move(self._current, -1, part)
        if self.search is not None:
            self.search(self._parent, status)
        is_last = not any(self._parts)
        try:
            self._current = open_child(self._parent, part)
        except OSError as error:
            raise _nowhere(error.errno or errno.EIO) from None
        if self._current < 0:
            if is_last:
                return False
            raise _nowhere(errno.ENOENT)
        if stat.S_ISLNK(os.fstat(self._current).st_mode) and (
            not is_last or self._follows or self._slash
        ):
            self._go_on(part, status, is_last)
        return True

    def _go_on(self, name: bytes, directory: os.stat_result, is_last: bool) -> None:
        """Follow the symlink that is the current file, ``name`` in a directory."""
        self._links += 1
        if self._links > _LINKS_LIMIT or os.fstatvfs(self._current).f_flag & ST_NOSYMFOLLOW:
            raise _nowhere(errno.ELOOP)
        if is_last and self.follow is not None:
            self.follow(self._parent, self._current)
        try:
            # A symlink may be mounted on what is in a procfs: that is one like all others.
            is_of_procfs = self._procfs.contains(self._parent, directory.st_dev) and is_procfs(
                self._current
            )
            is_magic = is_of_procfs and self._is_magic(name, directory)
        except OSError as error:
            raise _nowhere(error.errno or errno.EIO) from None
        if is_magic and self.jump is not None:
            self.jump(self._parent)
        try:
            if is_magic:
                self._jump(name, directory)
                return
            text = (
                self._procfs.link_text(self._parent, name, self._caller)
                if is_of_procfs and directory.st_ino == ROOT_INODE
                else None
            ) or _text(self._current)
            if text.startswith(b"/"):
                self._move(-1, os.open(b"/", _THERE))
            else:
                os.close(self._current)
                self._current, self._parent = self._parent, -1
        except OSError as error:
            raise _nowhere(error.errno or errno.EIO) from None
        if not text:
            raise _nowhere(errno.ENOENT)
        if is_last and text.endswith(b"/"):
            self._slash = True
        self._parts += text.split(b"/")[::-1]

    def _is_magic(self, name: bytes, directory: os.stat_result) -> bool:
        """Return whether a link of a procfs does not say where it leads."""
        if directory.st_ino == ROOT_INODE:
            return False
        tried = self._files.resolve(self._parent, name, 0, RESOLVE_NO_MAGICLINKS)
        if tried >= 0:
            os.close(tried)
        return tried == -errno.ELOOP

    def _jump(self, name: bytes, directory: os.stat_result) -> None:
        """Follow a magic link of a procfs. Raises OSError."""
        if self._procfs.misleads(self._parent, directory.st_dev) and self._procfs.is_of_agent(
            self._parent
        ):
            # The kernel lets nobody else follow it, and would let the agent.
            raise _nowhere(errno.EACCES)
        file = self._open_magic_link(name)
        self._move(-1, self.behind(file) if self.behind is not None else file)

    def _open_magic_link(self, name: bytes) -> int:
        """Return a descriptor of what a magic link leads to. Raises OSError."""
        if not self._procfs.shows_agent:
            return self._open_as_caller(self._parent, name)
        # In a mount that nobody else can reach: otherwise the agent would follow a symlink that
        # is mounted on the link meanwhile, to its own files.
        try:
            place = clone_mount(self._parent)
        except OSError as error:
            if error.errno not in _NO_CLONES:
                raise
            place = os.dup(self._parent)
        try:
            return self._open_as_caller(place, name)
        finally:
            os.close(place)

    def _open_as_caller(self, directory: int, name: bytes) -> int:
        """Follow a magic link if its caller may: ptrace(2), "access mode checking"."""
        if self._procfs.is_of_caller(self._parent, self._caller):
            return os.open(name, _THERE, dir_fd=directory)
        if self.borrow is not None:
            self.borrow(self._parent, name)
        # The kernel goes by what this thread may: no more than the caller, for the moment.
        own = set_effective(_capabilities_here(self._caller))
        try:
            return os.open(name, _THERE, dir_fd=directory)
        finally:
            set_effective(own)

    def _move(self, parent: int, current: int, name: bytes = b"") -> None:
        """Take another place, and close the descriptors of the former one."""
        for fd in {self._parent, self._current} - {parent, current}:
            if fd >= 0:
                os.close(fd)
        self._parent, self._current, self._name = parent, current, name


def _capabilities_here(caller: int) -> int:
    """Return the capabilities that a thread has over what is in the agent's user namespace."""
    return capabilities(caller)[0] if shares_user_namespace(caller) else 0


def open_root() -> int:
    """Return a descriptor of the root directory of the caller, which is this thread's, too."""
    return os.open(b"/", _THERE)


def open_child(directory: int, name: bytes) -> int:
    """Return a descriptor of a file in a directory, -1 if there is none. Raises OSError.

    ``name`` is one component; of a symlink it is the symlink itself.
    """
    try:
        return os.open(name, _HERE, dir_fd=directory)
    except FileNotFoundError:
        return -1


def is_within(directory: int, outer: int) -> bool:
    """Return whether an open directory is another one, or somewhere below that."""
    wanted = os.fstat(outer)
    here = os.dup(directory)
    try:
        status = os.fstat(here)
        while not os.path.samestat(status, wanted):
            above = os.open(b"..", _HERE, dir_fd=here)
            os.close(here)
            here, below, status = above, status, os.fstat(above)
            if os.path.samestat(status, below):
                return False
        return True
    except OSError:
        # It is gone meanwhile: no path leads there from above.
        return False
    finally:
        os.close(here)


def _text(link: int) -> bytes:
    return os.readlink(b"", dir_fd=link)


def is_open_directory(file: int) -> bool:
    """Return whether a descriptor is one of a directory."""
    return stat.S_ISDIR(os.fstat(file).st_mode)


def _nowhere(number: int) -> Nowhere:
    return Nowhere(number, os.strerror(number))
