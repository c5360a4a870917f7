"""One intercepted system call, as its handler sees it."""

from __future__ import annotations

import errno
import os
import sys

from runrootless.linux import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Call:
    """An intercepted system call that waits for its answer.

    ``pid`` is the calling thread as the agent's pid namespace numbers it, and
    ``arguments`` are the six registers, unsigned.
    """

    __slots__ = ("arguments", "identifier", "listener", "pid")

    def __init__(
        self, pid: int, arguments: Sequence[int], listener: int, identifier: bytes
    ) -> None:
        self.pid = pid
        self.arguments = arguments
        self.listener = listener
        self.identifier = identifier

    ANSWERED = 1 << 63
    """What a handler returns that has answered itself, by ``answer_with_fd``."""

    def answer_with_fd(self, fd: int, close_on_exec: int) -> None:
        """Give the caller a descriptor of its own of the open file ``fd``, as its result.

        ``close_on_exec`` is O_CLOEXEC or 0. Raises OSError: EMFILE, ENOENT.
        """
        identifier = int.from_bytes(self.identifier, sys.byteorder)
        seccomp.add_fd_and_send(self.listener, identifier, fd, close_on_exec)

    def is_valid(self) -> bool:
        """Return whether the caller still waits; until it is asked, ``pid`` may be another's."""
        return seccomp.is_valid(self.listener, self.identifier)

    def descriptor(self, index: int) -> int:
        """Return an argument as the signed C int that a file descriptor is."""
        value = self.arguments[index] & 0xFFFFFFFF
        return value - 0x100000000 if value & 0x80000000 else value


def failure(number: int) -> OSError:
    """Return the exception that makes a call fail with this errno."""
    return OSError(number, os.strerror(number))


def require_valid(call: Call) -> None:
    """Raise the error of an interrupted call unless the caller still waits for its answer.

    To be asked after its memory was read and before anything is done: nobody
    receives the error, the point is that nothing happens.
    """
    if not call.is_valid():
        raise failure(errno.EINTR)
