"""A process whose calls are notified, and the agent's loop to answer them."""

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from runrootless.agent.ledger import NO_CALL, VARIED, Ledger
from runrootless.agent.loop import ENDED, LEFT, TURN, Activity, Flag, Loop
from runrootless.emulation.apart import Apart
from runrootless.emulation.call import Call
from runrootless.emulation.processes.status_files import Readers
from runrootless.emulation.programs import Programs
from runrootless.linux import bpf, seccomp
from runrootless.linux.process import set_no_new_privileges
from runrootless.linux.syscall_numbers import NUMBERS

SYSTEM_CALLS = NUMBERS[os.uname().machine]

# What the sixth argument of the calls is that are notified. None of them takes it.
_MARK = 0x5EC0_0DE5
_FILTER = b"".join(
    (
        bpf.load(bpf.argument(5, high=False)),
        bpf.if_equal(_MARK, 0, 1),
        bpf.finish(seccomp.RETURN_NOTIFY),
        bpf.finish(seccomp.RETURN_ALLOW),
    )
)
_REQUEST = struct.Struct("=q5Q")
_REPLY = struct.Struct("=qq")
_FILLED = b"\xaa"
_PAGE = mmap.PAGESIZE
_SIZE = 4 * _PAGE


class Outcome(NamedTuple):
    """What became of a call.

    ``is_left`` tells that it was left to Python, ``is_written`` that the agent or the kernel
    wrote into the caller's buffer. The kernel carries out what is left.
    """

    is_left: bool
    value: int
    error: int
    written: bytes | None


class Caller:
    """A child of this process. It calls what it is told to, one call at a time.

    There are two pages for text, of which the one behind cannot be read, and one to write to.
    """

    def __init__(self, polls: bool = False, root_only: bool = False) -> None:
        self._memory = mmap.mmap(-1, _SIZE)
        self.first = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.buffer = self.first + 3 * _PAGE
        self._socket, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._socket.close()
                self._run(theirs)
            finally:
                os._exit(1)
        theirs.close()
        _, (self.listener,), _, _ = socket.recv_fds(self._socket, 1, 1)
        self.ledger = Ledger()
        slot = self.ledger.take(1)
        assert slot is not None
        self.slot = slot
        self.unusual = Flag()
        self.unusual.set(True)
        self.activity = Activity()
        self.readers = Readers(64)
        self.apart = Apart()
        self.programs = Programs()
        self.look: Callable[[int, bytearray], bool] = lambda file, status: False
        self.loop = Loop(
            self.listener,
            slot,
            self.ledger,
            self.unusual,
            self.activity,
            self.readers,
            self.apart,
            self.programs,
            polls,
            root_only,
            lambda file, status: self.look(file, status),
        )

    def _run(self, commands: socket.socket) -> None:
        syscall = ctypes.CDLL(None, use_errno=True).syscall
        syscall.restype = ctypes.c_long
        syscall.argtypes = [ctypes.c_ulong] * 7
        guard = ctypes.c_void_p(self.first + 2 * _PAGE)
        ctypes.CDLL(None).mprotect(guard, _PAGE, 0)
        set_no_new_privileges()
        listener = seccomp.install(_FILTER, seccomp.FILTER_NEW_LISTENER)
        socket.send_fds(commands, [b"."], [listener])
        os.close(listener)
        while request := commands.recv(_REQUEST.size):
            number, *arguments = _REQUEST.unpack(request)
            value = syscall(number, *arguments, _MARK)
            commands.sendall(_REPLY.pack(value, ctypes.get_errno() if value == -1 else 0))
        os._exit(0)

    def set_views_vary(self, value: bool) -> None:
        """Say whether views of files may vary."""
        self.ledger.header[VARIED] = value

    def text(self, text: bytes, offset: int = 0, page: int = 0) -> int:
        """Put text into the caller's memory, with a null byte; return where it is."""
        start = page * _PAGE + offset
        self._memory[start : start + len(text) + 1] = text + b"\0"
        return self.first + start

    def call(self, name: str, *arguments: int) -> Outcome:
        """Have a call made and answered."""
        self._memory[3 * _PAGE :] = _FILLED * _PAGE
        self.begin(name, arguments)
        found = self.loop.serve()
        assert found in (LEFT, TURN)
        if found == LEFT:
            assert self.slot.identifier != NO_CALL
            assert Call(self.slot.notification.tobytes(), self.listener).answer(None)
        return self.finish(found == LEFT)

    def begin(self, name: str, arguments: Sequence[int]) -> None:
        """Have a call made, which then waits for the loop."""
        padded = [argument & 0xFFFFFFFFFFFFFFFF for argument in arguments]
        padded += [0] * (5 - len(padded))
        self._socket.sendall(_REQUEST.pack(SYSTEM_CALLS[name], *padded))

    def finish(self, is_left: bool) -> Outcome:
        """Return what became of the call that was begun."""
        value, error = _REPLY.unpack(self._socket.recv(_REPLY.size))
        written = self._memory[3 * _PAGE :]
        is_untouched = written == _FILLED * _PAGE
        return Outcome(is_left, value, error, None if is_untouched else written)

    def end(self) -> None:
        """End the process; its loop learns of it."""
        self._socket.close()
        os.waitpid(self.pid, 0)
        assert self.loop.serve() == ENDED
        assert self.slot.identifier == NO_CALL
        os.close(self.listener)
        os.close(self.activity.wakes)
