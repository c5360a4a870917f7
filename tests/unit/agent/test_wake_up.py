"""When the kernel is to wake threads where there is room, by who calls."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.agent import loop
from runrootless.agent.wake_up import CALM, MANY, WakeUp
from runrootless.linux.libc import address, c_void_p, silent_function
from support.callers import Caller

# How many threads the loop keeps in mind.
KEPT = 8

note = silent_function("note_caller", loop._LIBRARY)

Tree = list["Tree"]
trees: st.SearchStrategy[Tree] = st.recursive(
    st.just([]), lambda children: st.lists(children, max_size=4), max_leaves=60
)
lengths = st.lists(st.integers(1, 4), min_size=1, max_size=50)


def counted(threads: list[int]) -> tuple[int, int]:
    """Return how many calls are counted of threads, by their numbers, and how many cross."""
    memory = bytearray(loop.CALLERS_SIZE)
    where = c_void_p(address(memory))
    for thread in threads:
        note(where, thread)
    calls, crossings = loop.CALLERS.unpack_from(memory)
    return calls, crossings


def calls_of(process: Tree, numbers: Iterator[int]) -> list[int]:
    """Return the calls of a process that waits for its children, one after the other."""
    number = next(numbers)
    found = [number]
    for child in process:
        found += [*calls_of(child, numbers), number]
    return found


@given(trees)
def test_who_waits_for_its_children_crosses_nobody(process: Tree) -> None:
    calls = calls_of(process, iter(range(1, 1000)))
    repeated = [number for number in calls for _ in range(1 + number % 3)]
    assert counted(repeated) == (len(repeated), 0)


@given(st.integers(2, KEPT), lengths)
def test_threads_by_turns_cross_each_time(threads: int, runs: list[int]) -> None:
    calls = [100 + turn % threads for turn, length in enumerate(runs) for _ in range(length)]
    # Of the first one nobody else has called before.
    assert counted(calls) == (len(calls), max(0, len(runs) - threads - 1))


@given(st.lists(st.integers(1, 30), max_size=200))
def test_whatever_calls_is_counted(threads: list[int]) -> None:
    calls, crossings = counted(threads)
    changes = sum(one != other for one, other in zip(threads, threads[1:], strict=False))
    assert calls == len(threads)
    assert crossings <= changes


@pytest.fixture
def wake_up(caller: Caller) -> WakeUp:
    return WakeUp(caller.listener)


class Looks:
    """Looks at calls that are counted further and further."""

    def __init__(self, wake_up: WakeUp) -> None:
        self._wake_up = wake_up
        self._calls = self._crossings = 0

    def look(self, calls: int, crossings: int) -> bool:
        """Have so many more counted; return whether the flag is set then."""
        self._calls += calls
        self._crossings += crossings
        self._wake_up.adapt(self._calls, self._crossings)
        return self._wake_up.is_set


def test_the_flag_is_set_for_one_thread_and_for_many_calls(wake_up: WakeUp) -> None:
    looks = Looks(wake_up)
    assert wake_up.is_set
    assert looks.look(100, 0)
    assert looks.look(160, 10)
    assert looks.look(MANY, MANY // 2)
    assert looks.look(100 * MANY, 0)
    assert looks.look(0, 0)


def test_the_flag_is_not_set_while_threads_call_by_turns_now_and_then(wake_up: WakeUp) -> None:
    looks = Looks(wake_up)
    assert not looks.look(160, 40)
    assert not looks.look(MANY - 1, MANY // 2)
    # Until it has been otherwise for a while.
    for _ in range(CALM - 1):
        assert not looks.look(100, 0)
    assert looks.look(0, 0)
    assert not looks.look(160, 40)
    # Or somebody calls and calls.
    assert looks.look(MANY, 0)


def test_a_thread_that_has_left_its_crew_takes_its_count_along(wake_up: WakeUp) -> None:
    wake_up.adapt(1000, 800)
    wake_up.adapt(10, 5)
    assert wake_up.is_set
    wake_up.adapt(110, 55)
    assert not wake_up.is_set
