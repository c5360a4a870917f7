"""Removes the private directory of a container that the runtime has deleted."""

from __future__ import annotations

import select

from runrootless import background, state


def attend(directory: str, state_directory: str) -> None:
    """Wait in the background for the end of the runtime, which this process is about to become.

    Then, if the runtime keeps no state of the container any more in ``state_directory``,
    remove its private ``directory``. Raises OSError where no process can be had.
    """

    def run(runtime: int) -> None:
        background.close_others([runtime])
        poll = select.poll()
        poll.register(runtime, select.POLLIN)
        poll.poll()
        state.remove_abandoned_directory(directory, state_directory)

    background.spawn(run)
