"""The one resolver: it turns what a caller names into the files that the agent acts on.

A path, a directory descriptor and flags become a descriptor (O_PATH) that the agent holds;
no other code gives a path of the container to the kernel. Resolution begins at the caller's
own root, working directory or descriptor. openat2(2) does it in one call where no link
depends on who follows it; else ``Walk`` does. All that is done to a file afterwards is done
by its descriptor, so it does not matter what becomes of its name.
"""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.call import Call, failure
from runrootless.emulation.paths.procfs import Procfs
from runrootless.emulation.paths.stand_ins import StandIns
from runrootless.emulation.paths.walk import Found, Nowhere, Walk, open_child, open_root
from runrootless.linux.files import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    O_PATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_XDEV,
    Files,
)
from runrootless.linux.memory import Memory
from runrootless.linux.processes import descriptor_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.emulation.paths.walk import Follow, Jump, Search

PATH_MAX = 4096

_OPEN = O_PATH | os.O_CLOEXEC
_SPECIAL_NAMES = (b"", b".", b"..")


class Paths:
    """Opens files by the names that callers give them.

    A caller is given by the thread's ID, a directory as a descriptor of it or AT_FDCWD.
    """

    def __init__(self, memory: Memory, files: Files, procfs: Procfs, stand_ins: StandIns) -> None:
        self._memory = memory
        self._files = files
        self._procfs = procfs
        self._stand_ins = stand_ins
        self._walk = Walk(files, procfs, stand_ins)

    def on_borrowing(self, borrow: Callable[[int, bytes], None]) -> None:
        """Have called what ``Walk.borrow`` is."""
        self._walk.borrow = borrow

    def read(self, call: Call, address: int) -> bytes:
        """Return the path at an address of the caller's. Raises OSError: EFAULT, ENAMETOOLONG."""
        path = self._memory.read_string(call.pid, address)
        if path is None:
            raise failure(errno.EFAULT)
        if len(path) >= PATH_MAX:
            raise failure(errno.ENAMETOOLONG)
        return path

    def open(self, call: Call, directory: int, address: int, flags: int) -> int:
        """Return a descriptor of the file that a path in the caller's memory leads to.

        ``flags`` may hold AT_EMPTY_PATH and AT_SYMLINK_NOFOLLOW. Raises OSError as the kernel.
        """
        return self.open_path(call.pid, directory, self.read(call, address), flags)

    def open_path(self, caller: int, directory: int, path: bytes, flags: int) -> int:
        """Return a descriptor of the file that a path leads to, as ``open`` does."""
        if not path:
            if flags & AT_EMPTY_PATH:
                return self.open_descriptor(caller, directory)
            raise failure(errno.ENOENT)
        start = self._open_start(caller, directory, path)
        try:
            nofollow = os.O_NOFOLLOW if flags & AT_SYMLINK_NOFOLLOW else 0
            file = self._files.resolve(start, path, nofollow, RESOLVE_NO_MAGICLINKS)
            if file >= 0:
                if not self._procfs.misleads(file, os.fstat(file).st_dev):
                    return file
                os.close(file)
            elif self._is_certain(start, path, nofollow, file):
                raise failure(-file)
            first = open_root() if start == AT_FDCWD else os.dup(start)
        finally:
            _close(start)
        with self._walk.follow(caller, first, path, not nofollow) as found:
            if found.file < 0:
                raise failure(errno.ENOENT)
            return found.take_file()

    def open_descriptor(self, caller: int, descriptor: int) -> int:
        """Return a descriptor of what one of a thread's refers to, or of its working directory.

        That is the emulated node where it refers to what stands for one. Raises OSError: EBADF.
        """
        if descriptor == AT_FDCWD:
            return os.open(b"%d/cwd" % caller, _OPEN)
        try:
            if descriptor >= 0:
                file = os.open(b"%d/fd/%d" % (caller, descriptor), _OPEN)
                return self._stand_ins.behind(file)
        except FileNotFoundError:
            pass
        raise failure(errno.EBADF)

    def open_file(self, call: Call, descriptor: int) -> int:
        """Return a descriptor of the file that one of the caller's is open for.

        Raises OSError: EBADF where it is not open, or open just as a place (O_PATH).
        """
        file = self.open_descriptor(call.pid, max(descriptor, -1))
        try:
            # The link's permissions are what the descriptor is open for; where it is for
            # nothing, it takes a closer look.
            mode = os.lstat(b"%d/fd/%d" % (call.pid, descriptor)).st_mode
            if mode & 0o600 or not descriptor_flags(call.pid, descriptor) & O_PATH:
                return file
        except OSError:
            # Closed meanwhile, by another thread.
            pass
        os.close(file)
        raise failure(errno.EBADF)

    def find(self, call: Call, directory: int, address: int, follows: bool) -> Found:
        """Return where a path in the caller's memory leads, to make a file there.

        ``follows`` tells whether a symlink at its end is followed. Raises OSError as the kernel.
        """
        return self.find_path(call.pid, directory, self.read(call, address), follows)

    def find_path(self, caller: int, directory: int, path: bytes, follows: bool) -> Found:
        """Return where a path leads, as ``find`` does."""
        stripped = path.rstrip(b"/")
        head, slash, name = stripped.rpartition(b"/")
        slashes = len(path) > len(stripped)
        if name not in _SPECIAL_NAMES:
            head = head or slash or b"."
            found = Found(self.open_path(caller, directory, head + b"/", 0), name, -1, slashes)
            try:
                found.file = open_child(found.parent, name)
                is_plain = self._is_plain(found, follows)
            except BaseException:
                found.close()
                raise
            if is_plain:
                return found
            found.close()
        if not path:
            raise failure(errno.ENOENT)
        # A name to make a file by is not followed, slash or not.
        found = self.walk(caller, directory, path if follows else stripped or b"/", follows)
        # A symlink that is followed may have one behind the name that it leads to, too.
        found.slash |= slashes
        return found

    def walk(
        self,
        caller: int,
        directory: int,
        path: bytes,
        follows: bool,
        search: Search | None = None,
        follow: Follow | None = None,
        jump: Jump | None = None,
    ) -> Found:
        """Return where a path that is not empty leads, one component at a time.

        ``search``, ``follow`` and ``jump`` are as to ``Walk.follow``. Raises OSError, Nowhere.
        """
        try:
            start = self._open_start(caller, directory, path)
        except OSError as error:
            raise Nowhere(error.errno, error.strerror) from None
        first = open_root() if start == AT_FDCWD else start
        return self._walk.follow(caller, first, path, follows, search, follow, jump)

    def _open_start(self, caller: int, directory: int, path: bytes) -> int:
        """Return a descriptor of where a path begins, AT_FDCWD for the root. Raises OSError."""
        return AT_FDCWD if path.startswith(b"/") else self.open_descriptor(caller, directory)

    def _is_certain(self, start: int, path: bytes, nofollow: int, result: int) -> bool:
        """Return whether a path fails for its caller as it does for the agent.

        That is where it goes through no procfs: neither from a mount to another, nor in one.
        """
        if result == -errno.ELOOP:
            return False
        flags = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
        again = self._files.resolve(start, path, nofollow, flags)
        if again >= 0:
            os.close(again)
        if again != result:
            return False
        first = open_root() if start == AT_FDCWD else os.dup(start)
        try:
            return not self._procfs.contains(first, os.fstat(first).st_dev)
        finally:
            os.close(first)

    def _is_plain(self, found: Found, follows: bool) -> bool:
        """Return whether a directory and a name in it are what a walk would find."""
        if self._procfs.contains(found.parent, os.fstat(found.parent).st_dev):
            return False
        if found.file < 0 or not follows:
            return True
        mode = os.fstat(found.file).st_mode
        return not stat.S_ISLNK(mode) and (stat.S_ISDIR(mode) or not found.slash)


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
