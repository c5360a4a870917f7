"""Limits as unsigned 64-bit numbers, whatever Python makes of large ones."""

import resource
from collections.abc import Iterator
from subprocess import Popen

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runrootless.linux.limits import INFINITY, RLIMIT_RTTIME, get_soft_limit, set_soft_limit

LIMITS = st.integers(0, INFINITY)


@pytest.fixture(scope="module")
def process() -> Iterator[int]:
    with Popen(["sleep", "1000"]) as sleeping:
        yield sleeping.pid
        sleeping.kill()


@given(LIMITS)
@example(1 << 63)
@example((1 << 63) - 1)
@example(INFINITY)
@example(INFINITY - 1)
def test_what_is_set_is_got(process: int, soft: int) -> None:
    set_soft_limit(process, RLIMIT_RTTIME, soft, INFINITY)
    assert get_soft_limit(process, RLIMIT_RTTIME) == soft
    with open(f"/proc/{process}/limits") as file:
        (line,) = (line for line in file if line.startswith("Max realtime timeout"))
    assert line.split()[3:5] == ["unlimited" if soft == INFINITY else str(soft), "unlimited"]


def test_a_soft_limit_above_the_hard_one(process: int) -> None:
    with pytest.raises(ValueError):
        set_soft_limit(process, resource.RLIMIT_NOFILE, 11, 10)
