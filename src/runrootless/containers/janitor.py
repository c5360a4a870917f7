"""Removes the private directory of a container that has no agent to do it."""

from __future__ import annotations

import os
import select

from runrootless.containers import background, garbage


def attend(directory: str, state_directory: str, lock_fd: int | None = None) -> None:
    """Wait in the background for the end of the runtime, which this process is about to become.

    Then, if the runtime keeps no state of the container (any more) in ``state_directory``,
    remove its private ``directory``. ``lock_fd`` holds the lock of a directory that is new:
    until then it is kept. Raises OSError where no process can be had.
    """

    def run(runtime: int) -> None:
        background.close_others([runtime] if lock_fd is None else [runtime, lock_fd])
        # The caller's directory may be on something that is to be unmounted.
        os.chdir("/")
        poll = select.poll()
        poll.register(runtime, select.POLLIN)
        poll.poll()
        if lock_fd is not None:
            os.close(lock_fd)
        garbage.remove_abandoned(directory, state_directory)

    background.spawn(run)
