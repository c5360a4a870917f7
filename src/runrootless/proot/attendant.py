"""The process that outlives the command of a container under PRoot, and cleans up.

PRoot goes on until all that it traces has ended, and so does the container whose first process
it is.  When the command ends, the attendant kills what it has left, as the kernel would if the
command itself were the first process: pid_namespaces(7).
"""

from __future__ import annotations

import os
import select
import signal
import time

from runrootless.containers import background, garbage
from runrootless.proot.tracees import descendants, first_tracee

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Nothing tells that the runtime has executed PRoot, and PRoot its command: both are looked for,
# and the command often, so that it does not end unseen. A created container may wait for long.
_BRIEFLY, _SHORT, _LONG, _IMPATIENT_FOR = 0.001, 0.01, 0.1, 5.0


def attend(
    directory: str,
    lock_fd: int,
    state_directory: str,
    init_pid: Callable[[], int | None],
    program: str,
) -> None:
    """Stay beside the runtime that this process is about to become, and beside the container.

    ``directory`` is the container's private one and ``lock_fd`` its lock, which is held as long;
    ``state_directory`` is where the runtime keeps the container's state, ``init_pid`` returns
    the process ID that is in there, ``program`` is the first word of PRoot's command line.
    In the end the directory is removed, if the runtime has deleted the container by then.
    Raises OSError where no process can be had.
    """

    def run(runtime: int) -> None:
        background.close_others([runtime, lock_fd])
        init = _wait_for_init(runtime, init_pid)
        if init is not None:
            _wait_for_command(init, program)
        _wait(runtime)
        # This takes the lock itself.
        os.close(lock_fd)
        garbage.remove_abandoned(directory, state_directory)

    background.spawn(run)


def _wait_for_init(runtime: int, init_pid: Callable[[], int | None]) -> int | None:
    """Return the pid of a container's first process, ``None`` if the runtime made none."""
    while True:
        ended = _wait(runtime, _SHORT)
        init = init_pid()
        if init is not None or ended:
            return init


def _wait_for_command(init: int, program: str) -> None:
    """Return when ``init`` has ended; see to it that a PRoot does so after its command."""
    try:
        init_fd = os.pidfd_open(init)
    except OSError:
        return
    since = time.monotonic()
    while not _executes(init, program):
        if _wait(init_fd, _SHORT if time.monotonic() - since < _IMPATIENT_FOR else _LONG):
            return
    command = first_tracee(init)
    while command is None:
        if _wait(init_fd, _BRIEFLY):
            return
        command = first_tracee(init)
    try:
        command_fd = os.pidfd_open(command)
    except OSError:
        pass
    else:
        poll = select.poll()
        poll.register(init_fd, select.POLLIN)
        poll.register(command_fd, select.POLLIN)
        poll.poll()
        os.close(command_fd)
    while not _wait(init_fd, _SHORT):
        for pid in descendants(init):
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass


def _executes(pid: int, program: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().partition(b"\0")[0] == os.fsencode(program)
    except OSError:
        return False


def _wait(process: int, seconds: float | None = None) -> bool:
    """Wait for the end of the process of a pidfd, for ever or some seconds; return if it came."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
