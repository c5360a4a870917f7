"""SIGINT while the command works: it ends the command, and nothing is left behind.

Python raises KeyboardInterrupt anywhere, also where it drops it. So the kernel handles SIGINT
and ends the process. SIGINT is blocked while there is something that only this process would
remove, and becomes an exception only during what may take long.
"""

from __future__ import annotations

# The C half of the module "signal", which imports enum.
import _signal  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_INTERRUPT = (_signal.SIGINT,)


def leave_to_the_kernel() -> None:
    """Have an interrupt end this process, unless the caller has it ignored."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


# What the caller has had wait, which the runtime inherits: empty where nothing is held.
_before: list[set[int]] = []


def hold() -> None:
    """Have interrupts wait."""
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _INTERRUPT)
    if not _before:
        _before.append(before)


def let_through() -> None:
    """Have interrupts wait no more than they did before ``hold``."""
    if _before:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, _before.pop())


class Raised:
    """A context in which interrupts raise KeyboardInterrupt, also if they are held around it.

    Not those that the caller has blocked or ignored.
    """

    __slots__ = ("_handler", "_mask")

    def __enter__(self) -> None:
        self._handler = _signal.getsignal(_signal.SIGINT)
        if self._handler == _signal.SIG_DFL:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        self._mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        if _signal.SIGINT not in (_before[-1] if _before else self._mask):
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _INTERRUPT)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._mask)
        _signal.signal(_signal.SIGINT, self._handler)
