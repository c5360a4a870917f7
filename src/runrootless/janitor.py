"""Removes the private directory of a container that the runtime has deleted."""

from __future__ import annotations

import os
import select

from runrootless import background, state


def attend(directory: str, state_directory: str, lock_fd: int | None = None) -> None:
    """Wait in the background for the end of the runtime, which this process is about to become.

    Then, if the runtime keeps no state of the container any more in ``state_directory``,
    remove its private ``directory``. Until then hold ``lock_fd``, the lock of the directory, if
    there is one. Raises OSError where no process can be had.
    """
    kept = [] if lock_fd is None else [lock_fd]

    def run(runtime: int) -> None:
        background.close_others([runtime, *kept])
        poll = select.poll()
        poll.register(runtime, select.POLLIN)
        poll.poll()
        for descriptor in kept:
            os.close(descriptor)
        state.remove_abandoned_directory(directory, state_directory)

    background.spawn(run)
