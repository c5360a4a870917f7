"""Several workers at once, by pytest-xdist: who does what, and what they tell in the end.

Each worker has an account and trees of its own, as each run of the tests has. The tests of a
file are done by one worker, in their order, since they share what is made for the file.
"""

import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import pytest

# Much of the time is spent waiting, for disks, for the network and for what is to happen.
NUMBER = min(len(os.sched_getaffinity(0)) + 2, 8)

# The files whose tests take longest, the longest first. They are begun first, lest one is left
# to a single worker when all others have nothing to do any more. Of the first four two do not
# begin with the tree that others are made of, nor wait for it.
LONG = (
    "test_differential.py",
    "test_emulate.py",
    "test_runtimes_of_debian.py",
    "test_apt.py",
    "test_package_managers.py",
    "test_bootstrap.py",
    "test_engines.py",
    "test_attacks.py",
    "test_podman_under_emulate.py",
    "test_attacks_races.py",
    "test_commit.py",
    "test_fuzz.py",
    "test_proot.py",
    "test_podman.py",
    "test_shells.py",
    "test_many_containers.py",
    "test_program.py",
    "test_storm.py",
    "test_launcher.py",
    "test_images_in_generated.py",
    "test_name_service.py",
    "test_evil_configurations.py",
    "test_same_command_line.py",
    "test_agent.py",
    "test_lifecycle.py",
    "test_hanging_calls.py",
    "test_start_faults.py",
    "test_decoders.py",
)

ALONE = "alone: no other test of this run goes on meanwhile, because the whole host is changed"

PATIENCE = 60
"""Seconds in which workers that are interrupted have to end."""

SAID = "workeroutput"
"""Where xdist has what a worker has said in the end, on both sides."""

_TOLD = "runrootless"

_session: pytest.Session | None = None


def configure(config: pytest.Config) -> None:
    """Let xdist, if it is used, give whole files to workers, in the order of collection."""
    config.addinivalue_line("markers", ALONE)
    # A shell has some ignored by what it starts in the background, and nohup(1) one. So would
    # be all that the tests start, were they not caught here.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)
    # Ended by a time limit, the tests still clean up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if is_worker(config):
        signal.signal(signal.SIGINT, _interrupt_once)
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist = "loadfile"
        config.option.loadscopereorder = False


def is_worker(config: pytest.Config) -> bool:
    """Return whether this process is one of several that do tests for another one."""
    return hasattr(config, "workerinput")


def has_workers(config: pytest.Config) -> bool:
    """Return whether this process lets others do the tests."""
    return bool(getattr(config.option, "tx", None))


def begin(session: pytest.Session) -> None:
    """Remember the session of this process, to ``stop`` it."""
    global _session
    _session = session


def stop(reason: str, code: int) -> NoReturn:
    """End the whole run, with this exit code where there are no workers."""
    if _session is None or not is_worker(_session.config):
        pytest.exit(reason, code)
    # A worker that exits is taken for one that has crashed.
    _session.shouldstop = reason
    pytest.fail(reason, pytrace=False)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but not while what it interrupted is cleaned up.

    Of an interrupt at the terminal a worker hears twice, by the main process, too.
    """
    signal.signal(number, _do_nothing)
    raise KeyboardInterrupt


def interrupt(nodes: list[Any]) -> None:
    """Interrupt all workers, and wait until they have cleaned up. For the main process.

    Left to itself it kills them after ten seconds.
    """
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        children = [os.pidfd_open(int(pid)) for pid in file.read().split()]
    for child in children:
        signal.pidfd_send_signal(child, signal.SIGINT)
    deadline = time.monotonic() + PATIENCE
    # They say when they have done so; then they wait to be told to end.
    while time.monotonic() < deadline and not all(hasattr(node, SAID) for node in nodes):
        if len(select.select(children, [], [], 0.05)[0]) == len(children):
            break
    for child in children:
        os.close(child)


def is_alone(item: pytest.Item) -> bool:
    """Return whether no other test may go on meanwhile."""
    return item.get_closest_marker("alone") is not None


def order(items: list[pytest.Item]) -> None:
    """Put the tests of ``LONG`` first and those for which all others wait last.

    For the rest the order stays.
    """
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: (is_alone(item), places.get(item.path.name, len(places))))


@contextmanager
def turn(item: pytest.Item) -> Iterator[None]:
    """Wait until the test may begin, and let those begin that wait for its end.

    The locks are on files of the tests, which all workers of a checkout have. The first one is
    held for a moment only; whoever wants to be alone keeps it, so that no further test begins.
    """
    with open(__file__) as first, open(item.config.rootpath / "pyproject.toml") as second:
        kind = fcntl.LOCK_EX if is_alone(item) else fcntl.LOCK_SH
        fcntl.flock(first, kind)
        fcntl.flock(second, kind)
        if kind == fcntl.LOCK_SH:
            fcntl.flock(first, fcntl.LOCK_UN)
        try:
            yield
        finally:
            # Closing does not do where a process has a copy of the descriptor.
            for file in (second, first):
                fcntl.flock(file, fcntl.LOCK_UN)


def tell(config: pytest.Config, *what: Sequence[Any]) -> None:
    """Send the main process tuples and lists of words and numbers. For workers, at the end."""
    getattr(config, SAID)[_TOLD] = what


def told(node: Any) -> Any:
    """Return what a worker has told; None if it has ended without a word."""
    return getattr(node, SAID, {}).get(_TOLD)
