"""The number of a container in the object and in the filter, and what the object is told."""

import os
import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from runrootless import launcher
from runrootless.emulation import fast_state
from runrootless.emulation.fast_state import MARK, PLACEHOLDER, FastState, numbered, numbered_filter
from runrootless.emulation.seccomp_filter import build
from runrootless.emulation.table import PASSED
from runrootless.linux.seccomp import RETURN_NOTIFY
from runrootless.linux.syscall_numbers import NUMBERS as CALLS

NUMBERS = st.integers(0, (1 << 64) - 1)
MACHINE = os.uname().machine
STATE = struct.Struct("=16sQQQQ")


@given(NUMBERS)
def test_a_filter_with_a_number_is_what_would_have_been_built(number: int) -> None:
    made = numbered_filter(launcher.read("fast.bpf"), number)
    assert made == build(MACHINE, RETURN_NOTIFY, number=number)


def test_nothing_else_is_taken_for_the_number() -> None:
    program = launcher.read("fast.bpf")
    for half in (PLACEHOLDER & 0xFFFFFFFF, PLACEHOLDER >> 32):
        passed = len(PASSED.keys() & CALLS[MACHINE].keys())
        assert program.count(half.to_bytes(4, "little")) == passed


@given(NUMBERS)
def test_an_object_with_a_number(number: int) -> None:
    image = launcher.read("fast.so")
    made = numbered(image, number)
    start = made.index(MARK)
    assert STATE.unpack_from(made, start) == (MARK, number, 0, 0, 0)
    assert start % 4096 == 0
    assert made[:start] + image[start : start + STATE.size] + made[start + STATE.size :] == image


def test_what_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "fast.so"
    path.write_bytes(numbered(launcher.read("fast.so"), 7))
    file = os.open(path, os.O_RDWR)
    state = FastState(file)
    start = path.read_bytes().index(MARK)

    def told() -> tuple[bytes, int, int, int, int]:
        found: tuple[bytes, int, int, int, int] = STATE.unpack_from(path.read_bytes(), start)
        return found

    state.begin(0xFE00, 0xA)
    state.tell(struct.pack("=QQQ", 1, 5, 6))
    assert told() == (MARK, 7, 0xFE00, 0xA, 1)
    assert struct.unpack_from("=QQ", path.read_bytes(), start + STATE.size) == (5, 6)
    state.stop()
    assert told() == (MARK, 7, 0, 0xA, 1)
    assert state.place == (os.stat(path).st_dev, os.stat(path).st_ino)
    os.close(file)


def test_the_path_ends_no_name_in_the_variable() -> None:
    assert not set(" :\0") & set(fast_state.PATH)
