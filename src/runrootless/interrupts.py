"""SIGINT while the command line does its work: it ends that, and leaves nothing behind.

An interpreter raises it anywhere. From the beginning it is therefore left to the kernel,
which ends the process; it is raised where there is somebody to catch it; and it waits while
something is made that must be known to whoever removes it.
"""

from __future__ import annotations

# The C half of the module "signal", which imports enum.
import _signal  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


def raise_them() -> None:
    """Have interrupts raise KeyboardInterrupt, unless the caller has them ignored."""
    if _signal.getsignal(_signal.SIGINT) != _signal.SIG_IGN:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def ignore() -> None:
    """Have interrupts ignored, by what cleans up and ends."""
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)


class Held:
    """A context in which interrupts wait for its end."""

    __slots__ = ()

    def __enter__(self) -> None:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT,))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGINT,))
