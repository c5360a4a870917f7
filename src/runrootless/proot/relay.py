"""The process that passes signals on to the command under PRoot.

PRoot ignores the signals that would end it.  So a runtime that passes on what it gets, as
``run`` and ``exec`` do, passes it on to nobody.
"""

from __future__ import annotations

import os
import signal

from runrootless.proot.tracees import children_of_all

PASSED_ON = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGTSTP,
    signal.SIGCONT,
)
"""The signals that a runtime in the foreground passes on, and PRoot does not."""


def fork() -> None:
    """Return in a child of this process; this one waits for it and exits as it does.

    Meanwhile it sends the signals that it gets to the command under the PRoot that the
    child, by then a runtime, has started.  Raises OSError as fork(2) says.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        return
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: _pass_on(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(128 - code if code < 0 else code)


def _pass_on(runtime: int, number: int) -> None:
    children = children_of_all()
    for proot in children.get(runtime, ()):
        for command in children.get(proot, ()):
            _send(command, number)
            return
    # It has not come so far.
    _send(runtime, number)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
