"""A process that outlives the command: detached from its caller, reparented to init."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_STANDARD = (0, 1, 2)


def spawn(run: Callable[[int], object]) -> None:
    """Start a process that calls ``run`` with a pidfd of this one; return at once.

    This process is about to become the runtime, so the pidfd tells when the runtime
    has ended. Raises OSError as fork(2) and pidfd_open(2) say.
    """
    caller = os.pidfd_open(os.getpid())
    # Twice, so that it is not a child of the runtime, which waits for all of its own. The one
    # in between must not become one either: crun 1.8, left with it, hangs now and then.
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os.close(caller)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            run(caller)
    finally:
        os._exit(0)


def said_by_child(do: Callable[[], str]) -> tuple[str, int]:
    """Return what ``do`` returns in a child, and how that has ended: waitpid(2).

    It is 0 where all of that has come. Whatever it does to itself goes with it.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            os.write(writer, os.fsencode(do()))
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as file:
        said = file.read()
    return said, os.waitpid(child, 0)[1]


def close_others(keep: Iterable[int]) -> None:
    """Close all descriptors but ``keep``, and put /dev/null on the standard ones.

    A process that waits for the end of the runtime's output must not wait for this one.
    """
    kept = set(keep)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for descriptor in _STANDARD:
        if descriptor not in kept:
            os.dup2(null, descriptor)
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor not in _STANDARD and descriptor not in kept:
            try:
                os.close(descriptor)
            except OSError:
                # The descriptor of the listing itself.
                pass
