"""What is taken out of LD_PRELOAD, as a loader reads that."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.emulation.fast_state import PATH
from runrootless.emulation.processes.preloading import _cuts


def names(value: bytes) -> list[bytes]:
    """Return what a loader loads: glibc's handle_preload_list, musl's load_preload."""
    return [name for name in re.split(rb"[ :]", value.partition(b"\0")[0]) if name]


def cut(value: bytes) -> bytes:
    changed = bytearray(value + b"\0")
    for start, data in _cuts(value):
        changed[start : start + len(data)] = data
    assert len(changed) == len(value) + 1
    return bytes(changed).partition(b"\0")[0]


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (PATH, ""),
        (f"/own.so:{PATH}", "/own.so"),
        (f"/a.so /b.so {PATH}", "/a.so /b.so"),
        ("/own.so", "/own.so"),
        ("", ""),
        (f"{PATH}.old", f"{PATH}.old"),
        (f"/x{PATH}", f"/x{PATH}"),
    ],
)
def test_where_it_is_last(value: str, left: str) -> None:
    assert cut(value.encode()) == left.encode()
    # So that nobody sees half of it.
    assert all(len(data) == 1 for _, data in _cuts(value.encode()))


PIECES = st.sampled_from([PATH, PATH, "/own.so", "libc.so", " ", ":", "", f"{PATH}x", PATH[:-1]])


@given(st.lists(PIECES, max_size=8).map("".join))
def test_all_other_names_are_kept_in_their_order(value: str) -> None:
    before = value.encode()
    expected = [name for name in names(before) if name != PATH.encode()]
    assert names(cut(before)) == expected
