import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.emulation.stores.record import NOTHING, Record, decode, encode

IDS = st.integers(0, 0xFFFFFFFE)
DEVICE_TYPES = st.sampled_from((0, 0o020000, 0o060000))


@given(IDS, IDS, DEVICE_TYPES, st.integers(0, 0xFFFFFFFF))
def test_what_was_encoded_is_decoded(uid: int, gid: int, device_type: int, device: int) -> None:
    record = Record(uid, gid, device_type, device)
    assert decode(encode(record)) == record


@given(st.binary(max_size=64))
def test_any_bytes_are_a_record_or_a_value_error(message: bytes) -> None:
    try:
        record = decode(message)
    except ValueError:
        return
    # What was understood survives being written again.
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    ("message", "record"),
    [
        # As umoci and protoc write Resource { uid: 1000, gid: 100 }.
        (bytes.fromhex("08e8071064"), Record(1000, 100)),
        (bytes.fromhex("106408e807"), Record(1000, 100)),
        (b"", NOTHING),
        # 0xFFFFFFFF is "not changed".
        (bytes.fromhex("08ffffffff0f1005"), Record(0, 5)),
        # Unknown fields of each wire type are passed over.
        (bytes.fromhex("1a0361626308011a00"), Record(1, 0)),
        (bytes.fromhex("1d000000000801"), Record(1, 0)),
        (bytes.fromhex("1900000000000000000802"), Record(2, 0)),
        # The last of several values counts.
        (bytes.fromhex("08010802"), Record(2, 0)),
    ],
)
def test_messages_of_others(message: bytes, record: Record) -> None:
    assert decode(message) == record


@pytest.mark.parametrize(
    "message",
    [
        bytes.fromhex("08"),
        bytes.fromhex("08ff"),
        bytes.fromhex("1a05616263"),
        bytes.fromhex("0b"),
        b"\xff" * 12,
        # A regular file is no device type.
        encode(Record(1, 1))[:0] + bytes.fromhex("c83e808002"),
    ],
)
def test_malformed_messages(message: bytes) -> None:
    with pytest.raises(ValueError):
        decode(message)


def test_roots_own_file_needs_no_bytes() -> None:
    assert encode(NOTHING) == b""
