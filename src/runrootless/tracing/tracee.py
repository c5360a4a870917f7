"""A traced process: waiting for its execve(2), and calls that it is made to make."""

from __future__ import annotations

import errno
import os
import signal

from runrootless.errors import Error
from runrootless.linux import ptrace
from runrootless.linux.memory import Memory
from runrootless.tracing import machines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_AT_CALL = signal.SIGTRAP | 0x80
_JOB_CONTROL = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_ALL = b"\xff" * 8
_WORD = 8
_ENDED = "the process has ended"


class EndedError(Error):
    """The traced process is gone."""

    def __init__(self) -> None:
        super().__init__(_ENDED)


class Tracee:
    """A process of which all threads are traced by this thread.

    ``kills`` tells whether the process ends with its tracer, from the beginning.
    """

    def __init__(self, process: int, kills: bool) -> None:
        self.process = process
        self._options = ptrace.TRACE_CLONE | ptrace.TRACE_EXEC | ptrace.MARK_CALLS
        if kills:
            self._options |= ptrace.KILL_WITH_TRACER
        self._stopped: set[int] = set()
        self._threads: set[int] = set()

    def seize(self) -> None:
        """Trace all threads. Raises OSError: EPERM, ESRCH."""
        # Those that a thread makes before it is traced itself are found another time.
        while new := set(_threads(self.process)) - self._threads:
            for thread in new:
                try:
                    ptrace.seize(thread, self._options)
                except ProcessLookupError:
                    if thread == self.process:
                        raise
                except PermissionError:
                    # It came as a traced one.
                    if not self._threads or not _is_traced_here(thread):
                        raise
            self._threads |= new

    def await_program(self) -> None:
        """Wait until the process has executed a program, and is before its first instruction.

        Raises Error where it ends before that.
        """
        while True:
            thread, status = self._wait()
            kind, event = status >> 8 & 0xFF, status >> 16
            if event == ptrace.EVENT_EXEC and thread == self.process:
                # The other threads are gone.
                self._threads = {thread}
                self._to_call(thread)
                self._stopped = {thread}
                return
            self._pass(thread, kind, event)

    def stop(self) -> None:
        """Stop all threads wherever they are. Raises EndedError."""
        while running := set(_threads(self.process)) - self._stopped:
            self._threads |= running
            for thread in running:
                try:
                    ptrace.interrupt(thread)
                    self._await_stop(thread)
                except ProcessLookupError:
                    # It has ended, or another one has executed a program in its place.
                    if thread == self.process:
                        raise EndedError from None

    def _await_stop(self, thread: int) -> None:
        """Wait until a thread that was interrupted has stopped, or has ended."""
        while True:
            try:
                _, status = ptrace.wait(thread)
            except ChildProcessError:
                raise ProcessLookupError from None
            if not os.WIFSTOPPED(status):
                raise ProcessLookupError
            if status >> 16 == ptrace.EVENT_STOP:
                self._stopped.add(thread)
                return
            self._pass(thread, status >> 8 & 0xFF, status >> 16)

    def calls(self) -> Calls:
        """Return what makes calls in the first thread, which is stopped. Raises OSError, Error."""
        ptrace.set_options(self.process, self._options | ptrace.KILL_WITH_TRACER)
        return Calls(self.process)

    def let_go(self) -> None:
        """Let all threads run, and trace them no more."""
        for thread in self._stopped:
            try:
                ptrace.detach(thread)
            except OSError:
                # It has been killed.
                pass
        self._stopped.clear()

    def _pass(self, thread: int, kind: int, event: int) -> None:
        """Let a thread that has stopped go on as if it were not traced."""
        try:
            if event == ptrace.EVENT_STOP and kind in _JOB_CONTROL:
                ptrace.stay_stopped(thread)
            else:
                ptrace.go_on(thread, 0 if event else kind)
        except ProcessLookupError:
            # It has been killed meanwhile.
            pass

    def _to_call(self, thread: int) -> None:
        """Let a thread go on from its stop in execve(2) to the end of that."""
        ptrace.go_on_to_call(thread)
        while True:
            _, status = self._wait(thread)
            if status >> 8 == _AT_CALL:
                return
            ptrace.go_on_to_call(thread)

    def _wait(self, thread: int = -1) -> tuple[int, int]:
        """Return the next thread that has stopped, and its status. Raises EndedError."""
        while True:
            try:
                found, status = ptrace.wait(thread)
            except ChildProcessError:
                raise EndedError from None
            if os.WIFSTOPPED(status):
                return found, status
            self._ended(found)

    def _ended(self, thread: int) -> None:
        self._threads.discard(thread)
        self._stopped.discard(thread)
        if thread == self.process:
            raise EndedError


class Calls:
    """Calls that a stopped thread is made to make: a context, after which it is as before.

    No signal reaches it meanwhile.
    """

    def __init__(self, thread: int) -> None:
        self._thread = thread
        self._memory = Memory()
        self._signals: list[int] = []
        self._registers = ptrace.registers(thread)
        self.machine = machines.of_registers(self._registers)
        self._mask = ptrace.signal_mask(thread)
        counter = self.machine.values(self._registers)[self.machine.counter]
        instruction = self.machine.instruction
        # One that waits in a call has the instruction behind it. Where it is to go on, in the
        # vDSO of i386, the kernel takes a way back that destroys registers.
        before = self._memory.read(thread, counter - len(instruction), len(instruction))
        self._where = counter - len(instruction) if before == instruction else counter
        text = self._memory.read(thread, self._where, _WORD)
        if text is None:
            raise Error(f"the program of process {thread} cannot be read")
        self._text = text

    def __enter__(self) -> Calls:
        ptrace.set_signal_mask(self._thread, _ALL)
        instruction = self.machine.instruction
        ptrace.set_text(self._thread, self._where, instruction + self._text[len(instruction) :])
        return self

    def __exit__(self, *_: object) -> None:
        try:
            ptrace.set_text(self._thread, self._where, self._text)
            ptrace.set_registers(self._thread, self.machine.resumed(self._registers))
            ptrace.set_signal_mask(self._thread, self._mask)
            for number in self._signals:
                os.kill(self._thread, number)
        except ProcessLookupError:
            raise EndedError from None

    def call(self, name: str, *arguments: int) -> int:
        """Return what a call returns. Raises OSError where it fails, and EndedError."""
        registers = self.machine.for_call(self._registers, self._where, name, arguments)
        ptrace.set_registers(self._thread, registers)
        for _ in ("it begins", "it has ended"):
            self._to_call()
        result = self.machine.result_of(ptrace.registers(self._thread))
        if result < 0:
            raise OSError(-result, os.strerror(-result), f"{name}(2)")
        return result

    def write(self, address: int, data: bytes) -> None:
        """Write to memory that the thread may write to. Raises OSError."""
        if not self._memory.write(self._thread, [(address, data)], lambda: True):
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))

    def _to_call(self) -> None:
        while True:
            ptrace.go_on_to_call(self._thread)
            _, status = ptrace.wait(self._thread)
            if not os.WIFSTOPPED(status):
                raise EndedError
            if status >> 8 == _AT_CALL:
                return
            if not status >> 16 and status >> 8 == signal.SIGSTOP:
                # It cannot be blocked, and comes back in the end.
                self._signals.append(signal.SIGSTOP)


def _threads(process: int) -> Iterator[int]:
    return (int(name) for name in os.listdir(f"/proc/{process}/task"))


def _is_traced_here(thread: int) -> bool:
    with open(f"/proc/{thread}/status", "rb") as file:
        text = file.read()
    return int(text.partition(b"\nTracerPid:")[2].split(b"\n", 1)[0]) == os.getpid()
