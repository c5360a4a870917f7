"""Control data as programs write it, and as the kernel does."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.linux.control_data import COMPAT, CREDENTIALS, NATIVE, Builder, Layout

both = pytest.mark.parametrize("layout", [NATIVE, COMPAT], ids=["64", "32"])


@both
@given(control=st.binary(max_size=200))
def test_any_control_data(layout: Layout, control: bytes) -> None:
    end = 0
    for _, _, offset, length in layout.messages(control):
        assert offset >= end + layout.data_offset
        end = offset + length
        assert end <= len(control)


@both
@pytest.mark.parametrize("length", [0, 1, 7, 2**31, 2**32 - 1])
def test_a_length_that_cannot_be(layout: Layout, length: int) -> None:
    size = 8 if layout is NATIVE else 4
    for value in (length, 2 ** (8 * size) - 1 - length):
        control = value.to_bytes(size, "little") + bytes(40)
        assert list(layout.messages(control)) == []


@both
@given(parts=st.lists(st.binary(max_size=20), max_size=4))
def test_what_is_built_is_found(layout: Layout, parts: list[bytes]) -> None:
    builder = Builder(layout, 1000)
    for kind, data in enumerate(parts):
        builder.put(1, kind, data)
    assert not builder.is_cut
    found = [
        (level, kind, builder.data[offset : offset + length])
        for level, kind, offset, length in layout.messages(builder.data)
    ]
    assert found == [(1, kind, data) for kind, data in enumerate(parts)]


@pytest.mark.parametrize("room", range(80))
def test_what_there_is_no_room_for_is_cut_as_the_kernel_cuts_it(room: int) -> None:
    sender, receiver = socket.socketpair()
    with sender, receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        sender.send(b"x")
        _, expected, flags, _ = receiver.recvmsg(1, room)
        whole = CREDENTIALS.pack(*struct.unpack("iII", _ids(sender, receiver)))
    builder = Builder(NATIVE, room)
    builder.put(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, whole)
    found = [
        (level, kind, builder.data[offset : offset + length])
        for level, kind, offset, length in NATIVE.messages(builder.data)
    ]
    assert found == expected
    assert builder.is_cut == bool(flags & socket.MSG_CTRUNC)


def _ids(sender: socket.socket, receiver: socket.socket) -> bytes:
    sender.send(b"x")
    data: bytes = receiver.recvmsg(1, 100)[1][0][2]
    return data


@both
def test_lengths_of_memory(layout: Layout) -> None:
    word = "Q" if layout is NATIVE else "I"
    limit = 2 ** (8 * struct.calcsize(word) - 1)
    assert layout.vectors(struct.pack(f"={word * 4}", 1, 2, 3, limit - 1)) == [
        (1, 2),
        (3, limit - 1),
    ]
    assert layout.vectors(struct.pack(f"={word * 2}", 1, limit)) is None
