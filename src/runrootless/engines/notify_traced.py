"""The notify engine for processes that somebody else has started: a tracer puts them under it.

In place of the launcher a process of ours does it, ``runrootless.tracing``, and hands the
listener over to the agent.
"""

from __future__ import annotations

import os
import signal

from runrootless import requirements
from runrootless.agent import control
from runrootless.agent.launch import launch
from runrootless.agent.listener import hand_over
from runrootless.agent.settings import Settings
from runrootless.containers import garbage, state
from runrootless.errors import Error, one_line
from runrootless.launcher import read
from runrootless.linux import pidfd
from runrootless.linux.process import set_name
from runrootless.tracing import filters, subjects
from runrootless.tracing.tracee import EndedError, Reaper, Tracee

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Sequence

TRACER = "runrootless-trc"
"""The name of what traces a process until it executes its program, in ps(1)."""

_STANDARD_ERROR = 2
_TRACED = "traced"


class Agent:
    """An agent that waits for listeners.

    ``furnish`` is called with the path of its private directory before it starts, and may raise
    Error. ``kind`` begins the names of such directories. The rest is as ``Settings`` has it.
    Raises Error where there can be no agent; then nothing is left.
    """

    def __init__(
        self,
        engine: str,
        kind: str,
        log: str,
        log_format: str,
        debug: bool,
        side_stores: Sequence[str],
        rootfs: str = "",
        terminal_group: int | None = None,
        furnish: Callable[[str], object] | None = None,
    ) -> None:
        requirements.require_descriptors()
        requirements.require_processes(requirements.PROCESSES_OF_COMMAND)
        self._program = read(f"{engine}.bpf")
        base = state.open_base()
        garbage.collect(base)
        name = f"{kind}-{os.urandom(4).hex()}"
        made = state.create_container_directory(base, name, state.NOWHERE)
        try:
            if furnish is not None:
                furnish(made.path)
            self._socket, theirs = control.pair()
            settings = Settings(
                made.path,
                made.lock_fd,
                "",
                log,
                log_format,
                debug,
                side_stores,
                rootfs,
                thorough=engine == "thorough",
                terminal_group=terminal_group,
                tracer=theirs,
            )
            launch(settings)
        except BaseException:
            state.remove_container_directory(made.path)
            raise
        theirs.close()
        os.close(made.lock_fd)

    @property
    def socket(self) -> _socket.socket:
        """The connection to it. When all its copies are closed the agent expects no more."""
        return self._socket

    def take(self, tracee: Tracee) -> None:
        """Put a process that is stopped under emulation. Raises Error; then it is as before."""
        with Reaper(tracee.process), tracee.calls() as calls:
            listener = filters.install(calls, tracee.process, self._program)
            try:
                hand_over(self._socket, tracee.process, listener)
            finally:
                os.close(listener)


def follow(
    agent: Agent,
    process: int,
    begin: Callable[[], object],
    tell: Callable[[str], object],
) -> None:
    """Have a process come under emulation when it executes its program; return at once.

    Until then a process of ours traces it, and it does not outlive that. ``begin`` is called
    right before. Where something fails the process is killed, the reason being told by ``tell``
    and on its standard error. Raises Error where it cannot be traced.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.setsid()
            # Not a child of the runtime, nor of the caller, who may wait for all of theirs.
            if os.fork() == 0:
                _follow(agent, process, begin, tell, writer)
        finally:
            os._exit(0)
    os.close(writer)
    agent.socket.close()
    os.waitpid(child, 0)
    with open(reader, encoding="utf-8", errors="replace") as file:
        answer = file.read()
    if answer != _TRACED:
        raise Error(answer or "what traces the process has been killed")


def _follow(
    agent: Agent,
    process: int,
    begin: Callable[[], object],
    tell: Callable[[str], object],
    writer: int,
) -> None:
    tracee = Tracee(process, kills=True)
    try:
        set_name(TRACER)
        tracee.seize()
        os.write(writer, _TRACED.encode())
    except PermissionError:
        os.write(writer, str(subjects.refusal(process)).encode())
        return
    except (OSError, Error) as error:
        os.write(writer, one_line(error).encode("utf-8", "replace"))
        return
    # The runtime waits for the end of what the hook may write.
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(writer)
    try:
        tracee.await_program()
        begin()
        agent.take(tracee)
        tracee.let_go()
    except (EndedError, ProcessLookupError):
        # The container was not to be, or has been killed.
        pass
    except BaseException as error:
        tell(one_line(error))
        _say(process, one_line(error))
        os.kill(process, signal.SIGKILL)


def _say(process: int, text: str) -> None:
    """Write to the standard error of a process, if it takes it."""
    try:
        file = pidfd.duplicate(process, _STANDARD_ERROR)
        try:
            os.set_blocking(file, False)
            os.write(file, f"runrootless: {text}\n".encode("utf-8", "replace"))
        finally:
            os.close(file)
    except OSError:
        pass
