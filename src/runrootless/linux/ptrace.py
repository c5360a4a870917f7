"""Tracing processes: ptrace(2), <linux/ptrace.h>, <sys/ptrace.h>.

All calls about a traced thread are to be made by the one thread that has seized it.
"""

from __future__ import annotations

import os
import signal
import struct
import time

from runrootless.linux.libc import address, c_long, c_ulong, check, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

EVENT_CLONE = 3
"""``PTRACE_EVENT_CLONE``: the tracee has made a thread, which is traced as well."""

EVENT_EXEC = 4
"""``PTRACE_EVENT_EXEC``: the program is in memory, and its first instruction is yet to come."""

EVENT_STOP = 128
"""``PTRACE_EVENT_STOP``: after ``interrupt``, of a new thread, and stops of job control."""

TRACE_CLONE = 1 << EVENT_CLONE
TRACE_EXEC = 1 << EVENT_EXEC

MARK_CALLS = 1
"""``PTRACE_O_TRACESYSGOOD``: stops at calls have bit 7 in the signal's number."""

KILL_WITH_TRACER = 1 << 20
"""``PTRACE_O_EXITKILL``: the tracee does not outlive its tracer."""

NOBODY = "3"
"""The value of ``scope`` with which no process may be traced."""

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_CONT, _DETACH, _SYSCALL = 7, 17, 24
_SETOPTIONS, _GETREGSET, _SETREGSET = 0x4200, 0x4204, 0x4205
_GETSIGINFO = 0x4202
_SEIZE, _INTERRUPT, _LISTEN = 0x4206, 0x4207, 0x4208
_GET_RSEQ = 0x420F
_GETSIGMASK, _SETSIGMASK = 0x420A, 0x420B
_POKETEXT = 4
_GENERAL = 1
"""``NT_PRSTATUS``."""
_REGISTERS_SIZE = 1024
# Seconds.
_LOOK_EACH = 0.05
# Threads as well as processes: waitpid(2).
_WALL = 0x40000000
_ENDS = (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED)
_WORD = struct.Struct("=Q")
_AREA = struct.Struct("@PN")
_MASK_SIZE = 8
# siginfo_t: number, error, code.
_SIGINFO, _SIGINFO_SIZE = struct.Struct("=3i"), 128
# struct ptrace_rseq_configuration: address, size, signature, flags.
_RSEQ = struct.Struct("=Q4I")

_ptrace = function("ptrace", c_long, c_long, c_ulong, c_ulong, result=c_long)


def _call(request: int, thread: int, where: int = 0, data: int = 0) -> int:
    return check(_ptrace(request, thread, where, data), "ptrace")


def scope() -> str:
    """Return ``kernel.yama.ptrace_scope``, empty where there is no Yama, or it does not tell."""
    try:
        with open(_YAMA) as file:
            return file.read().strip()
    except OSError:
        return ""


def seize(thread: int, options: int) -> None:
    """Trace a thread, which goes on running. Raises OSError: EPERM, ESRCH."""
    _call(_SEIZE, thread, 0, options)


def set_options(thread: int, options: int) -> None:
    """Replace the options of a thread that is stopped. Raises OSError."""
    _call(_SETOPTIONS, thread, 0, options)


def interrupt(thread: int) -> None:
    """Have a thread stop, with ``EVENT_STOP``. Raises OSError."""
    _call(_INTERRUPT, thread)


def go_on(thread: int, signal: int = 0) -> None:
    """Let a stopped thread run, after it has got a signal. Raises OSError."""
    _call(_CONT, thread, 0, signal)


def go_on_to_call(thread: int, signal: int = 0) -> None:
    """Let it run until it begins, or ends, a system call. Raises OSError."""
    _call(_SYSCALL, thread, 0, signal)


def stay_stopped(thread: int) -> None:
    """Leave a thread stopped by job control as that has it. Raises OSError."""
    _call(_LISTEN, thread)


def detach(thread: int) -> None:
    """Let a stopped thread run, and trace it no more. Raises OSError."""
    _call(_DETACH, thread)


def wait(thread: int = -1) -> tuple[int, int]:
    """Return the next thread that has stopped or ended, and its status: waitpid(2).

    Raises OSError: ECHILD where none is traced any more.
    """
    return os.waitpid(thread, _WALL)


def wait_until(deadline: float) -> tuple[int, int] | None:
    """Do as ``wait`` for any thread, until a moment of the monotonic clock, then return None.

    SIGCHLD should be blocked, and so end the waiting.
    """
    while True:
        found, status = os.waitpid(-1, _WALL | os.WNOHANG)
        if found:
            return found, status
        rest = deadline - time.monotonic()
        if rest <= 0:
            return None
        # Whoever ignores SIGCHLD gets none.
        signal.sigtimedwait([signal.SIGCHLD], min(rest, _LOOK_EACH))


def reap(threads: Iterable[int]) -> None:
    """Wait for those of the traced threads that have ended, and not for those that have stopped.

    They are looked at first: whoever waits for a traced thread is told of its stop, whatever it
    has asked for, and nobody else is.
    """
    for thread in threads:
        look = os.WEXITED | os.WNOWAIT | os.WNOHANG | _WALL
        try:
            found = os.waitid(os.P_PID, thread, look)
            if found is not None and found.si_code in _ENDS:
                os.waitpid(thread, os.WNOHANG | _WALL)
        except ChildProcessError:
            # It has not been traced yet, or somebody else has waited for it.
            pass


def signal_code(thread: int) -> int:
    """Return ``si_code`` of the signal that a thread has stopped for: above 0 it is the kernel's.

    Raises OSError.
    """
    buffer = bytearray(_SIGINFO_SIZE)
    _call(_GETSIGINFO, thread, 0, address(buffer))
    code: int = _SIGINFO.unpack_from(buffer)[2]
    return code


def restartable_sequences(thread: int) -> int:
    """Return the address of a stopped thread's ``struct rseq``, 0 where it has none: rseq(2)."""
    buffer = bytearray(_RSEQ.size)
    try:
        _call(_GET_RSEQ, thread, _RSEQ.size, address(buffer))
    except OSError:
        # Before Linux 5.13, and without rseq(2).
        return 0
    found: int = _RSEQ.unpack(buffer)[0]
    return found


def registers(thread: int) -> bytes:
    """Return the general registers of a stopped thread, as its architecture has them.

    Raises OSError.
    """
    buffer = bytearray(_REGISTERS_SIZE)
    area = bytearray(_AREA.pack(address(buffer), len(buffer)))
    _call(_GETREGSET, thread, _GENERAL, address(area))
    return bytes(buffer[: _AREA.unpack(area)[1]])


def set_registers(thread: int, values: bytes) -> None:
    """Set them. Raises OSError."""
    buffer = bytearray(values)
    area = bytearray(_AREA.pack(address(buffer), len(buffer)))
    _call(_SETREGSET, thread, _GENERAL, address(area))


def signal_mask(thread: int) -> bytes:
    """Return the signals that a stopped thread blocks, as a bit set. Raises OSError."""
    buffer = bytearray(_MASK_SIZE)
    _call(_GETSIGMASK, thread, _MASK_SIZE, address(buffer))
    return bytes(buffer)


def set_signal_mask(thread: int, mask: bytes) -> None:
    """Set them; SIGKILL and SIGSTOP are never blocked. Raises OSError."""
    buffer = bytearray(mask)
    _call(_SETSIGMASK, thread, _MASK_SIZE, address(buffer))


def set_text(thread: int, where: int, data: bytes) -> None:
    """Write eight bytes, also where the thread may not write by itself. Raises OSError."""
    _call(_POKETEXT, thread, where, _WORD.unpack(data)[0])
