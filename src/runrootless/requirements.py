"""Checks of what a container needs from the machine, before anything is made for it."""

from __future__ import annotations

import os

from runrootless.errors import Error

PROCESSES = 32
"""How many processes and threads there are at most while a container starts: Go's runtime in a
runtime ends with a dump where it gets no thread."""

PROCESSES_OF_COMMAND = 16
"""The same for a command of the host, which has no runtime."""

# A greater limit is not near enough to count how much of it is used.
_AMPLE = 1024
# What the runtime and the agent open at most before they raise the limit, and what they write,
# besides the derived bundle: a page each for the state, the fifo and the credentials.
_DESCRIPTORS = 32
_ROOM = 1 << 14


def require_descriptors() -> None:
    """Raise ``Error`` if this process may open so few files that cleaning up could fail as well."""
    limit = os.sysconf("SC_OPEN_MAX")
    if 0 <= limit < _DESCRIPTORS:
        raise Error(
            f"at most {limit} files may be open (RLIMIT_NOFILE), and a container takes "
            f"{_DESCRIPTORS}: raise the limit (ulimit -n)"
        )


def require_terminal(wish: str) -> None:
    """Raise ``Error`` if the caller has no terminal for that of a container's process.

    ``wish`` is what asks for one.
    """
    for file in (0, 1, 2):
        if os.isatty(file):
            return
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        raise Error(
            f"{wish} asks for a terminal, and there is none: do it at one, do without, "
            "or take --detach with --console-socket"
        ) from None


def require_processes(needed: int) -> None:
    """Raise ``Error`` if the caller may not have so many more processes and threads."""
    limit = os.sysconf("SC_CHILD_MAX")
    # Nor does the kernel hold the real root to it.
    if not 0 <= limit < _AMPLE or os.geteuid() == 0:
        return
    used = own_processes()
    if limit - used < needed:
        raise Error(
            f"at most {limit} processes may run (RLIMIT_NPROC), there are {used}, and it takes "
            f"{needed} more: raise the limit (ulimit -u), or end some"
        )


def own_processes() -> int:
    """Return how many processes and threads the caller has, as far as /proc shows them."""
    count, uid = 0, b"\nUid:\t%d\t" % os.getuid()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            file = os.open(f"/proc/{name}/status", os.O_RDONLY)
        except OSError:
            # It has ended.
            continue
        try:
            status = os.read(file, 1 << 14)
        except OSError:
            continue
        finally:
            os.close(file)
        if uid in status:
            count += int(status.partition(b"\nThreads:")[2].split(None, 1)[0])
    return count


def require_room(base: str) -> None:
    """Raise ``Error`` if there is no room in ``base`` for what a runtime and the agent keep."""
    found = os.statvfs(base)
    free = found.f_bavail * found.f_frsize
    # A ramfs does not count its blocks: statfs(2).
    if found.f_blocks and free < _ROOM:
        raise Error(
            f"{base}: No space left on device: {free} bytes are free, and a container takes "
            f"{_ROOM}: free some, or set XDG_RUNTIME_DIR to a directory with more"
        )
