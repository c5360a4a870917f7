"""One intercepted system call, as its handler sees it."""

from __future__ import annotations

import errno
import os

from runrootless.linux import seccomp

_UNPACK = seccomp.CALL.unpack


class Call:
    """An intercepted system call that waits for its answer.

    ``notification`` is the kernel's ``struct seccomp_notif``. ``pid`` is the calling
    thread as the agent's pid namespace numbers it, and ``arguments`` are the six
    registers, unsigned.
    """

    __slots__ = ("arguments", "listener", "notification", "pid")

    arguments: list[int]

    def __init__(self, notification: bytes, listener: int) -> None:
        self.notification = notification
        self.listener = listener
        self.pid, *self.arguments = _UNPACK(notification)

    ANSWERED = 1 << 63
    """What a handler returns that has answered itself, by ``answer_with_fd``."""

    def answer_with_fd(self, fd: int, close_on_exec: int) -> None:
        """Give the caller a descriptor of its own of the open file ``fd``, as its result.

        ``close_on_exec`` is O_CLOEXEC or 0. Raises OSError: EMFILE, ENOENT.
        """
        identifier = self.notification[seccomp.IDENTIFIER]
        seccomp.add_fd_and_send(self.listener, identifier, fd, close_on_exec)

    def is_valid(self) -> bool:
        """Return whether the caller still waits; until it is asked, ``pid`` may be another's."""
        return seccomp.is_valid(self.listener, self.notification[seccomp.IDENTIFIER])

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
