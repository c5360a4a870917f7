"""A traced process: waiting for its execve(2), and calls that it is made to make."""

from __future__ import annotations

import errno
import os
import signal
import struct
import threading
import time

from runrootless.errors import Error
from runrootless.linux import ptrace
from runrootless.linux.memory import Memory
from runrootless.tracing import machines
from runrootless.tracing.tasks import field, has_ended, is_stopped, thread_count, threads

_AT_CALL = signal.SIGTRAP | 0x80
_JOB_CONTROL = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
# What the kernel answers a call with that goes wrong, or is forbidden. If they were blocked, it
# would take away the program's own handler.
_FORCED = (
    *(signal.SIGSYS, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE),
    signal.SIGTRAP,
)
_PASSABLE = sum(1 << number - 1 for number in _FORCED)
_MASK = struct.Struct("=Q")
_ALL = (1 << 64) - 1
# struct rseq, rseq_cs: behind the numbers of the processor; start, length, and way out.
_SEQUENCE, _SECTION = struct.Struct("=8xQ"), struct.Struct("=8x3Q")
# Seconds in which a thread stops that can.
_PATIENCE = 10.0
_PAUSE = 0.002
_REAP_EACH = 0.01
_ATTEMPTS = 64
_WORD = 8
_ENDED = "the process has ended"


class EndedError(Error):
    """The traced process is gone."""

    def __init__(self) -> None:
        super().__init__(_ENDED)


class Tracee:
    """A process of which all threads are traced by this thread.

    ``kills`` tells whether the process ends with its tracer, from the beginning. ``stopped`` are
    the stopped threads of all that this thread traces: one may turn up by another's clone(2).
    """

    def __init__(self, process: int, kills: bool, stopped: set[int] | None = None) -> None:
        self.process = process
        self._options = ptrace.TRACE_CLONE | ptrace.TRACE_EXEC | ptrace.MARK_CALLS
        if kills:
            self._options |= ptrace.KILL_WITH_TRACER
        self._stopped: set[int] = set() if stopped is None else stopped
        self._threads: set[int] = set()

    def seize(self) -> None:
        """Trace all threads. Raises OSError: EPERM, ESRCH."""
        with Reaper(self.process):
            self._seize()

    def _seize(self) -> None:
        # Those that a thread makes before it is traced itself are found another time.
        seen = self._threads | self._stopped
        refused = 0
        while new := set(threads(self.process)) - seen:
            seen |= new
            for thread in new:
                try:
                    ptrace.seize(thread, self._options)
                except ProcessLookupError:
                    if thread == self.process:
                        raise
                    continue
                except PermissionError:
                    if has_ended(thread):
                        continue
                    # It came as a traced one.
                    if not _is_traced_here(thread):
                        # So it is too for one that has just given its number to another one,
                        # which executes a program. That one is found another time.
                        refused += 1
                        if refused > _ATTEMPTS:
                            raise
                        seen.discard(thread)
                        continue
                self._threads.add(thread)

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
            if not event and kind in _FORCED and ptrace.signal_code(thread) > 0:
                self._require_caught(thread, kind)
            self._pass(thread, kind, event)

    def _require_caught(self, thread: int, number: int) -> None:
        """Raise Error for a signal that ends the process: the kernel ends no traced init by it."""
        if not int(field(thread, b"SigCgt"), 16) >> number - 1 & 1:
            raise Error(
                f"the program cannot be executed: it gets the signal {number}, as where "
                "RLIMIT_AS or RLIMIT_STACK are too small for it"
            )

    def stop(self) -> None:
        """Stop all threads wherever they are.

        Raises EndedError, and Error where one does not stop: only its own calls end its waiting.
        """
        deadline = time.monotonic() + _PATIENCE
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        try:
            while not self._has_stopped():
                for thread in threads(self.process):
                    if self._is_stopped(thread):
                        continue
                    self._stopped.discard(thread)
                    try:
                        ptrace.interrupt(thread)
                        self._await_stop(thread, deadline)
                    except ProcessLookupError:
                        self._threads.discard(thread)
                        if thread == self.process:
                            self._find_again(deadline)
                        elif not has_ended(thread):
                            # It was missing in the list when all were to be traced.
                            self.seize()
                if time.monotonic() > deadline:
                    raise Error(
                        f"process {self.process} does not stop: it makes threads without end"
                    )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _has_stopped(self) -> bool:
        """Return whether all threads have stopped: then none can execute a program."""
        seen = threads(self.process)
        # The list is no picture of one moment.
        is_so = all(map(self._is_stopped, seen)) and thread_count(self.process) == len(seen)
        try:
            # One that has executed one, and got the first thread's number, stops to say so.
            while found := ptrace.wait_until(0):
                self._heed(*found)
                is_so = False
        except ChildProcessError:
            return False
        return is_so

    def _is_stopped(self, thread: int) -> bool:
        """Return whether a thread has stopped, and not another one that has got its number."""
        return thread in self._stopped and is_stopped(thread, os.getpid())

    def _find_again(self, deadline: float) -> None:
        """Trace the first thread again, in whose place another one executes a program."""
        if len(threads(self.process)) < 2 and has_ended(self.process):
            raise EndedError
        if time.monotonic() > deadline:
            raise Error(
                f"the first thread of process {self.process} has ended, and it would be what "
                "puts the others under emulation"
            )
        time.sleep(_PAUSE)
        self.seize()

    def _await_stop(self, thread: int, deadline: float) -> None:
        """Wait until a thread that was interrupted has stopped, or has ended."""
        while thread not in self._stopped:
            # Any thread: who executes a program waits until all those that end for it are
            # waited for.
            try:
                found = ptrace.wait_until(deadline)
            except ChildProcessError:
                raise ProcessLookupError from None
            if found is None:
                raise Error(
                    f"process {self.process} does not stop: its thread {thread} is in a call that "
                    "nothing interrupts, as vfork(2) is until the child executes its program"
                )
            one, status = found
            self._heed(one, status)
            if not os.WIFSTOPPED(status):
                if one == thread:
                    raise ProcessLookupError
            elif one == thread:
                # Any other stop does away with the interruption, and it may be that of another
                # one in its place.
                if one not in self._stopped:
                    ptrace.interrupt(one)
            elif status >> 16 == ptrace.EVENT_EXEC:
                raise ProcessLookupError

    def _heed(self, thread: int, status: int) -> None:
        """Do as a thread's status says, which was waited for."""
        event = status >> 16
        if not os.WIFSTOPPED(status):
            self._threads.discard(thread)
            self._stopped.discard(thread)
        elif event == ptrace.EVENT_STOP:
            self._stopped.add(thread)
        else:
            self._pass(thread, status >> 8 & 0xFF, event)
            if event == ptrace.EVENT_EXEC:
                # It has the first thread's ID, whatever it was, and runs.
                self._stopped.discard(thread)

    def calls(self) -> Calls:
        """Return what makes calls in the first thread, which is stopped. Raises OSError, Error."""
        try:
            ptrace.set_options(self.process, self._options | ptrace.KILL_WITH_TRACER)
            return Calls(self.process)
        except ProcessLookupError:
            raise EndedError from None

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


class Reaper:
    """A context in which the ended threads of a process are waited for: nobody is told of them.

    Who executes a program waits until that is done, and until then who traces one more thread of
    the process waits as well, whatever signal comes ("Bugs" of ptrace(2)). And nothing is said of
    the end of a first thread before that of the others. So it takes another thread of ours.
    """

    def __init__(self, process: int) -> None:
        self._process = process
        self._is_over = threading.Event()

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._reap)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _reap(self) -> None:
        while not self._is_over.wait(_REAP_EACH):
            try:
                ptrace.reap(threads(self._process))
            except OSError:
                # It is gone.
                return


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
        counter = self._leave_section(self.machine.values(self._registers)[self.machine.counter])
        instruction = self.machine.instruction
        # One that waits in a call has the instruction behind it. Where it is to go on, in the
        # vDSO of i386, the kernel takes a way back that destroys registers.
        before = self._memory.read(thread, counter - len(instruction), len(instruction))
        self._where = counter - len(instruction) if before == instruction else counter
        self._before = before or b""
        text = self._memory.read(thread, self._where, _WORD)
        if text is None:
            raise Error(f"the program of process {thread} cannot be read")
        self._text = text

    def _leave_section(self, counter: int) -> int:
        """Return where the thread goes on: out of a restartable sequence, as it has to (rseq(2)).

        The kernel sends it there when it goes on, and would do so in the middle of our calls.
        """
        area = ptrace.restartable_sequences(self._thread)
        sequence = self._memory.read(self._thread, area, _SEQUENCE.size) if area else None
        address = _SEQUENCE.unpack(sequence)[0] if sequence else 0
        section = self._memory.read(self._thread, address, _SECTION.size) if address else None
        if section is None:
            return counter
        start, length, out = _SECTION.unpack(section)
        if not 0 <= counter - start < length:
            return counter
        self._registers = self.machine.at(self._registers, out)
        return int(out)

    def __enter__(self) -> Calls:
        (mask,) = _MASK.unpack(self._mask)
        ptrace.set_signal_mask(self._thread, _MASK.pack(_ALL & ~_PASSABLE | mask))
        instruction = self.machine.instruction
        ptrace.set_text(self._thread, self._where, instruction + self._text[len(instruction) :])
        return self

    def __exit__(self, *_: object) -> None:
        try:
            ptrace.set_text(self._thread, self._where, self._text)
            resumed = self.machine.resumed(self._registers, self._before)
            ptrace.set_registers(self._thread, resumed)
            ptrace.set_signal_mask(self._thread, self._mask)
            for number in self._signals:
                os.kill(self._thread, number)
        except ProcessLookupError:
            raise EndedError from None

    def call(self, name: str, *arguments: int) -> int:
        """Return what a call returns. Raises OSError where it fails, and EndedError.

        EPERM stands for SIGSYS, too, by which a seccomp filter may answer.
        """
        registers = self.machine.for_call(self._registers, self._where, name, arguments)
        try:
            ptrace.set_registers(self._thread, registers)
            for _ in ("it begins", "it has ended"):
                self._to_call()
            result = self.machine.result_of(ptrace.registers(self._thread))
            if result == self.machine.numbers[name] and self._is_forbidden():
                result = -errno.EPERM
        except ProcessLookupError:
            raise EndedError from None
        if result < 0:
            raise OSError(-result, os.strerror(-result), f"{name}(2)")
        return result

    def _is_forbidden(self) -> bool:
        """Return whether SIGSYS is the answer to a call, which has its own number as result."""
        if not _pending(self._thread) >> signal.SIGSYS - 1 & 1:
            return False
        try:
            self._to_call()
        except _ForcedError:
            pass
        return True

    def write(self, address: int, data: bytes) -> None:
        """Write to memory that the thread may write to. Raises OSError."""
        if not self._memory.write(self._thread, [(address, data)], lambda: True):
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))

    def _to_call(self) -> None:
        passed = 0
        while True:
            ptrace.go_on_to_call(self._thread, passed)
            try:
                _, status = ptrace.wait(self._thread)
            except ChildProcessError:
                raise EndedError from None
            if not os.WIFSTOPPED(status):
                raise EndedError
            kind, event = status >> 8 & 0xFF, status >> 16
            if status >> 8 == _AT_CALL:
                return
            passed = 0
            if event:
                continue
            if kind == signal.SIGSTOP:
                # The process is stopped by it when it is let go, unless SIGCONT comes first.
                passed = kind
            elif ptrace.signal_code(self._thread) > 0:
                raise _ForcedError(kind)
            else:
                self._signals.append(kind)


class _ForcedError(Error):
    """The kernel has answered an instruction by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"it cannot make calls: it gets the signal {number}")


def _is_traced_here(thread: int) -> bool:
    try:
        return int(field(thread, b"TracerPid")) == os.getpid()
    except OSError:
        return False


def _pending(thread: int) -> int:
    """Return the signals that wait for one thread, as a bit set."""
    return int(field(thread, b"SigPnd"), 16)
