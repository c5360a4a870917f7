"""From what a process calls a file to a name by which the agent finds the same file.

The agent's working directory is the /proc of its own pid namespace and its root is
the caller's. So an absolute path names the same file for both, and the others are
reached through the caller's own links: ``PID/cwd/...`` and ``PID/fd/N/...``.
"""

from __future__ import annotations

import errno

from runrootless.emulation.call import Call, failure
from runrootless.linux.files import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    O_PATH,
    Files,
)
from runrootless.linux.memory import Memory
from runrootless.linux.processes import descriptor_flags, read_status, status_fields

PATH_MAX = 4096

OWN_PLACES = (b"/proc/", b"/dev/")
"""What paths begin with that may lead each process elsewhere."""

_SELF_LINKS = {
    b"/dev/stdin": b"/fd/0",
    b"/dev/stdout": b"/fd/1",
    b"/dev/stderr": b"/fd/2",
}
_SELF_ITSELF = (b"/proc/self", b"/proc/thread-self")
_SELF_THREADS = b"/proc/self/task/"
_SELF_DIRECTORIES = (
    (b"/proc/self/", b"/"),
    (b"/proc/thread-self/", b"/"),
    (b"/dev/fd/", b"/fd/"),
)


class Paths:
    """Finds names for the agent."""

    def __init__(self, memory: Memory, files: Files) -> None:
        self._memory = memory
        self._files = files

    def name(self, call: Call, directory: int, address: int, flags: int) -> tuple[bytes, int]:
        """Return a name and its AT_SYMLINK_NOFOLLOW flag, for a path in the caller's memory.

        ``directory`` is a descriptor of the caller's or AT_FDCWD, and ``flags`` may hold
        AT_EMPTY_PATH and AT_SYMLINK_NOFOLLOW. Raises OSError: EFAULT, ENAMETOOLONG, ENOENT.
        """
        path = self._memory.read_string(call.pid, address)
        if path is None:
            raise failure(errno.EFAULT)
        if path:
            flags &= AT_SYMLINK_NOFOLLOW
            return self.name_of(call.pid, directory, path, flags), flags
        if not flags & AT_EMPTY_PATH:
            raise failure(errno.ENOENT)
        return self.descriptor_name(call.pid, directory), 0

    def name_of(
        self, pid: int, directory: int, path: bytes, flags: int = AT_SYMLINK_NOFOLLOW
    ) -> bytes:
        """Return a name for a thread's path that is not empty. Raises OSError: ENAMETOOLONG.

        ``flags`` is AT_SYMLINK_NOFOLLOW where the file may be a symlink itself.
        """
        if len(path) >= PATH_MAX:
            raise failure(errno.ENAMETOOLONG)
        if path.startswith(b"/"):
            if path.startswith(OWN_PLACES):
                return _resolve_self(pid, path, flags)
            return path
        if directory == AT_FDCWD:
            return b"%d/cwd/%b" % (pid, path)
        return b"%d/fd/%d/%b" % (pid, directory, path)

    def descriptor_name(self, pid: int, descriptor: int) -> bytes:
        """Return the name of what a descriptor of a thread's refers to, to be followed."""
        if descriptor == AT_FDCWD:
            return b"%d/cwd" % pid
        return b"%d/fd/%d" % (pid, descriptor)

    def open_file_name(self, call: Call, descriptor: int) -> bytes:
        """Return the name of the file that a descriptor is open for.

        Raises OSError: EBADF where it is not open, or open just as a place (O_PATH).
        """
        if descriptor < 0:
            raise failure(errno.EBADF)
        name = self.descriptor_name(call.pid, descriptor)
        result = self._files.stat(name, AT_SYMLINK_NOFOLLOW)
        if result < 0:
            raise failure(errno.EBADF if result == -errno.ENOENT else -result)
        # The link's permissions are what the descriptor is open for; where it is for
        # nothing, it takes a closer look.
        is_place = (
            not self._files.mode() & 0o600 and descriptor_flags(call.pid, descriptor) & O_PATH
        )
        if is_place:
            raise failure(errno.EBADF)
        return name

    def explain(self, call: Call, directory: int, name: bytes, result: int) -> int:
        """Return the negative error number that the caller is to see for a failed ``name``.

        A descriptor that is not open shows up as ENOENT of its /proc link.
        """
        if result != -errno.ENOENT or directory == AT_FDCWD or name.startswith(b"/"):
            return result
        link = self.descriptor_name(call.pid, directory)
        if self._files.stat(link, AT_SYMLINK_NOFOLLOW) == -errno.ENOENT:
            return -errno.EBADF
        return result


def _resolve_self(pid: int, path: bytes, flags: int) -> bytes:
    """Return ``path`` by way of the caller's directory in the agent's /proc.

    The agent is not in the container's pid namespace, so "self" leads it nowhere.
    """
    if path in _SELF_ITSELF and not flags:
        return b"%d" % pid
    if path.startswith(_SELF_THREADS):
        # The numbers of threads are the container's.
        process = status_fields(read_status(pid), b"NStgid")[-1]
        return b"/proc/%b/task/%b" % (process, path[len(_SELF_THREADS) :])
    for directory, target in _SELF_DIRECTORIES:
        if path.startswith(directory):
            return b"%d%b%b" % (pid, target, path[len(directory) :])
    link = _SELF_LINKS.get(path)
    return path if link is None else b"%d%b" % (pid, link)
