"""One intercepted system call, as its handler sees it."""

from __future__ import annotations

import errno
import os

from runrootless.linux import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Callable

    from typing_extensions import TypeAlias

    from runrootless.linux.memory import Memory

    Handler: TypeAlias = "Callable[[Call], int | None]"
    """What answers a call: it returns the result, or -errno, None where it answers itself."""

_UNPACK = seccomp.CALL.unpack


class Call:
    """An intercepted system call that waits for its answer.

    ``notification`` is the kernel's ``struct seccomp_notif``. ``pid`` is the calling
    thread as the agent's pid namespace numbers it, and ``arguments`` are the six
    registers, unsigned. ``begun`` is a byte that outlasts this process, and that is set
    before the call has an effect. ``remembered`` is what the handler has kept of the same
    call when that was interrupted (``Interrupted``), None as a rule.
    """

    __slots__ = ("arguments", "begun", "listener", "notification", "pid", "remembered")

    arguments: list[int]

    def __init__(self, notification: bytes, listener: int, begun: memoryview | None = None) -> None:
        self.notification = notification
        self.listener = listener
        self.begun = begun
        self.remembered: object = None
        self.pid, *self.arguments = _UNPACK(notification)

    ANSWERED = 1 << 63
    """What a handler returns that has answered itself, by ``answer`` say, or will later."""

    WAITS = ANSWERED + 1
    """What stands for the result of a call that waits."""

    def answer(self, value: int | None) -> bool:
        """Give the caller its result, as a handler would return it.

        Return whether it has not been interrupted before.
        """
        identifier = self.notification[seccomp.IDENTIFIER]
        if value is None:
            response = seccomp.RESPONSE.pack(identifier, 0, 0, seccomp.FLAG_CONTINUE)
        elif value < 0:
            response = seccomp.RESPONSE.pack(identifier, 0, value, 0)
        else:
            response = seccomp.RESPONSE.pack(identifier, value, 0, 0)
        try:
            seccomp.send(self.listener, response)
        except OSError:
            return False
        return True

    def answer_with_fd(self, fd: int, close_on_exec: int) -> None:
        """Give the caller a descriptor of its own of the open file ``fd``, as its result.

        ``close_on_exec`` is O_CLOEXEC or 0. Raises OSError: EMFILE, ENOENT.
        """
        identifier = self.notification[seccomp.IDENTIFIER]
        seccomp.add_fd_and_send(self.listener, identifier, fd, close_on_exec)

    def add_fd(self, fd: int, close_on_exec: int) -> int:
        """Give the caller a descriptor of the open file ``fd``; return its number there.

        ``close_on_exec`` is O_CLOEXEC or 0. Raises OSError: EMFILE, ENOENT.
        """
        # It has the descriptor by then, and would get another one.
        self.begin()
        identifier = self.notification[seccomp.IDENTIFIER]
        return seccomp.add_fd(self.listener, identifier, fd, close_on_exec)

    def begin(self) -> None:
        """Take note that the call may have its effect from here on."""
        if self.begun is not None:
            self.begun[0] = 1

    def is_valid(self) -> bool:
        """Return whether the caller still waits; until it is asked, ``pid`` may be another's."""
        return seccomp.is_valid(self.listener, self.notification[seccomp.IDENTIFIER])

    def descriptor(self, index: int) -> int:
        """Return an argument as the signed C int that a file descriptor is."""
        value = self.arguments[index] & 0xFFFFFFFF
        return value - 0x100000000 if value & 0x80000000 else value


class Waits(Exception):
    """Raised by a handler whose call cannot be answered yet.

    ``retry`` is to be called when ``event`` has events, or ``deadline`` (as time.monotonic
    counts seconds) has passed; it does as a handler does, and may raise this again, with the
    same event. ``event`` is to be closed when the call has its answer.
    """

    def __init__(
        self, event: select.epoll, deadline: float | None, retry: Callable[[], int | None]
    ) -> None:
        super().__init__()
        self.event = event
        self.deadline = deadline
        self.retry = retry


def failure(number: int) -> OSError:
    """Return the exception that makes a call fail with this errno."""
    return OSError(number, os.strerror(number))


class Change:
    """A context for permission checks of a change: on a read-only mount EROFS comes first.

    There EACCES and EPERM become EROFS, as mnt_want_write() in fs/namespace.c is called before
    permissions are looked at. ``file`` is a descriptor of the file or the directory that is to
    be changed.
    """

    __slots__ = ("_file",)

    def __init__(self, file: int) -> None:
        self._file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        refused = isinstance(error, PermissionError)
        if refused and os.fstatvfs(self._file).f_flag & os.ST_RDONLY:
            raise failure(errno.EROFS) from None


def require_valid(call: Call) -> None:
    """Raise the error of an interrupted call unless the caller still waits for its answer.

    To be asked after its memory was read and before anything is done: nobody
    receives the error, the point is that nothing happens. From here on the call counts as
    one that may have had its effect.
    """
    call.begin()
    if not call.is_valid():
        raise failure(errno.EINTR)


def write(memory: Memory, call: Call, *parts: tuple[int, bytes | bytearray]) -> bool:
    """Write bytes to addresses in the caller's memory; return whether all could be written.

    Raises the error of an interrupted call where the caller does not wait any more: then the
    memory is its own again. From here on the call counts as one that may have had its effect.
    """
    call.begin()
    return memory.write(call.pid, parts, call.is_valid)
