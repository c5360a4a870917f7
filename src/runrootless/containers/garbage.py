"""What containers that have ended in a crash left of their private directories, and its removal."""

from __future__ import annotations

import os
from fcntl import LOCK_EX, flock

from runrootless.containers import state

_CHECKS = 32


def collect(base: str) -> None:
    """Remove the directories in ``base`` that dead containers left.

    Called before a directory is made, so it looks at a few of them only, at
    others each time, and leaves at once if somebody else is in ``base``.
    """
    base_lock = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not state.try_lock(base_lock):
            return
        names = [name for name in os.listdir(base) if state.is_name(name)]
        if len(names) > _CHECKS:
            start = os.getpid() % len(names)
            names = (names + names)[start : start + _CHECKS]
        for name in names:
            if _is_garbage(os.path.join(base, name)):
                state.remove_locked(base_lock, name)
    except OSError:
        # It is housekeeping: what stays is tried again next time.
        pass
    finally:
        os.close(base_lock)


def _is_garbage(path: str) -> bool:
    lock = state.open_lock(path)
    if lock is None:
        # Its maker, or who was to remove it, died in the middle.
        return not os.listdir(path)
    try:
        if not state.try_lock(lock):
            return False
        root, container_id = state.read_owner(lock)
        return not container_id or not os.path.lexists(os.path.join(root, container_id))
    finally:
        os.close(lock)


def remove_abandoned(path: str, state_directory: str) -> None:
    """Remove a container's directory when its agent has left it.

    ``state_directory`` is where the runtime would keep the container's state; if there
    is one again by then, the directory stays.
    """
    if os.path.lexists(state_directory):
        return
    lock = state.open_lock(path)
    if lock is None:
        return
    try:
        # Held until the agent has left.
        flock(lock, LOCK_EX)
        if os.fstat(lock).st_nlink and not os.path.lexists(state_directory):
            state.remove_container_directory(path)
    finally:
        os.close(lock)
