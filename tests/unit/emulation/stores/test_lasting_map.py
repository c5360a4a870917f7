"""What a worker leaves to the next one, whenever it is killed."""

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.emulation.call import Call
from runrootless.emulation.stores.journal import MINIMUM
from runrootless.emulation.stores.lasting_map import LastingMap
from runrootless.linux import eventfd
from runrootless.linux.seccomp import NOTIFICATION_SIZE

LIMIT = 8
KEYS = st.one_of(st.integers(0, 12).map(lambda n: (n,)), st.tuples(st.text(max_size=3)))
VALUES = st.one_of(
    st.none(), st.integers(), st.binary(max_size=9), st.tuples(st.integers(), st.text(max_size=4))
)


def successor(before: LastingMap) -> LastingMap:
    """Return the map of a worker that is forked from the same supervisor later."""
    after = LastingMap("after", LIMIT)
    os.dup2(before.fd, after.fd)
    after.take_over()
    return after


@given(changes=st.lists(st.tuples(KEYS, VALUES), max_size=40), cut=st.integers(0, 30))
def test_the_next_one_has_all_that_was_noted(changes: list[tuple[Any, Any]], cut: int) -> None:
    first = LastingMap("first", LIMIT)
    first.take_over()
    expected: dict[Any, Any] = {}
    for key, value in changes:
        first.set(key, value)
        expected.pop(key, None)
        if value is not None:
            while len(expected) >= LIMIT:
                del expected[next(iter(expected))]
            expected[key] = value
    # A line that somebody was killed in says nothing.
    os.pwrite(first.fd, b"\ncut short"[:cut], os.lseek(first.fd, 0, os.SEEK_END))
    second = successor(first)
    assert second.items() == list(expected.items())
    second.set(("more",), 1)
    assert successor(second).get(("more",)) == 1
    for one in (first, second):
        os.close(one.fd)


def test_it_does_not_grow(as_an_agent: None) -> None:
    one = LastingMap("one", LIMIT)
    one.take_over()
    for number in range(4000):
        one.set((number % 12,), bytes(1000))
    assert os.fstat(one.fd).st_size <= 2 * MINIMUM
    assert len(successor(one)) == LIMIT


def test_a_call_that_has_given_a_descriptor_has_begun(as_an_agent: None) -> None:
    """Whoever answers it anew would give another one."""
    begun = bytearray(1)
    call = Call(bytes(NOTIFICATION_SIZE), eventfd.eventfd(), memoryview(begun))
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        call.add_fd(0, 0)
    assert begun == b"\1"
