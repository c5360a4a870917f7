"""Checks of what a container needs from the machine, before anything is made for it."""

from __future__ import annotations

import os

from runrootless.errors import Error

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


def require_terminal() -> None:
    """Raise ``Error`` if the caller has no terminal for that of a container's process."""
    for file in (0, 1, 2):
        if os.isatty(file):
            return
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        raise Error(
            "the bundle wants a terminal (process.terminal), and there is none: run it at one, "
            "take --detach with --console-socket, or set process.terminal to false"
        ) from None


def require_room(base: str) -> None:
    """Raise ``Error`` if there is no room in ``base`` for what a runtime and the agent keep."""
    found = os.statvfs(base)
    free = found.f_bavail * found.f_frsize
    if free < _ROOM:
        raise Error(
            f"{base}: No space left on device: {free} bytes are free, and a container takes "
            f"{_ROOM}: free some, or set XDG_RUNTIME_DIR to a directory with more"
        )
