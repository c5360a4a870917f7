"""``attach``: emulation for processes that run already."""

from __future__ import annotations

import os
import signal

from runrootless import engines
from runrootless.agent import user_stores
from runrootless.command_line import own
from runrootless.command_line.runc import ATTACH
from runrootless.engines import notify_traced
from runrootless.errors import Error
from runrootless.tracing import subjects, tasks
from runrootless.tracing.tracee import EndedError, Tracee

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.command_line.runc import Parsed


def run(options: Parsed) -> int:
    """Put a process and its descendants under emulation; return the exit code.

    Raises ``Error`` and ``OSError``.
    """
    parsed = own.parse("attach", ATTACH, options.arguments[1:], "PID", 1)
    if parsed is None:
        return 0
    text = parsed.arguments[0]
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise Error(f"attach takes the ID of a process, not {text}")
    process = int(text)
    choice = engines.choose(parsed.get("engine") or options.get("engine"), "")
    if choice.name not in engines.WITH_LISTENER:
        raise Error(f"attach takes {' or '.join(engines.WITH_LISTENER)}, not {choice.name}")
    subjects.require_traceable()
    for one in _processes(process):
        try:
            subjects.require_fit(one)
        except Error:
            if one == process or not tasks.has_ended(one):
                raise
    agent = notify_traced.Agent(
        choice.name,
        "attach",
        options.get("log"),
        options.get("log-format"),
        options.is_on("debug"),
        _side_stores(),
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    tracees: list[Tracee] = []
    stopped: set[int] = set()
    try:
        # Those that are stopped make no more of them.
        while new := [one for one in _processes(process) if one not in _ids(tracees)]:
            for one in new:
                tracee = Tracee(one, kills=False, stopped=stopped)
                tracees.append(tracee)
                if not _stop(tracee, process):
                    tracees.remove(tracee)
        # From here on a process would end with this one.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for tracee in tracees:
            try:
                agent.take(tracee)
            except EndedError:
                if tracee.process == process:
                    raise
            except Error as error:
                raise Error(f"process {tracee.process}: {error}") from None
    finally:
        for tracee in tracees:
            tracee.let_go()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0


def _stop(tracee: Tracee, process: int) -> bool:
    """Trace and stop a process; return False where it is a descendant that has ended."""
    one = tracee.process
    try:
        tracee.seize()
        tracee.stop()
    except (ProcessLookupError, FileNotFoundError, EndedError):
        if one == process:
            raise Error(f"there is no process {process}") from None
        return False
    except PermissionError:
        # Of one that has ended nobody says so.
        if one != process and tasks.has_ended(one):
            return False
        raise subjects.refusal(one) from None
    return True


def _processes(process: int) -> list[int]:
    """Return a process and its descendants, without this one."""
    return [one for one in subjects.descendants(process) if one != os.getpid()]


def _ids(tracees: list[Tracee]) -> set[int]:
    return {tracee.process for tracee in tracees}


def _side_stores() -> list[str]:
    """Return what the paths of the caller's side stores begin with, as for ``emulate``."""
    path = user_stores.directory()
    refusal = user_stores.refusal(path) or user_stores.make(path)
    if refusal:
        raise Error(f"{refusal}: owners of symlinks and special files would be lost")
    return [f"{path}/"]
