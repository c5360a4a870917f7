"""The record of a file: its owner, or the device it stands for; and the encoding.

The encoding is the protobuf message ``Resource { uint32 uid = 1; uint32 gid = 2; }``
of the extended attribute ``user.rootlesscontainers``: the convention that umoci and
the PRoot fork of rootless-containers share. 0xFFFFFFFF means "not changed". Device
nodes add two fields of ours, which other readers skip as protobuf demands.
"""

from __future__ import annotations

import stat

NOT_CHANGED = 0xFFFFFFFF

_FIELD_UID = 1
_FIELD_GID = 2
_FIELD_DEVICE_TYPE = 1001
_FIELD_DEVICE = 1002
_DEVICE_TYPES = (0, stat.S_IFCHR, stat.S_IFBLK)


class Record:
    """The owner of a file and, for a device node, its type (as in st_mode) and st_rdev."""

    __slots__ = ("device", "device_type", "gid", "uid")

    def __init__(self, uid: int = 0, gid: int = 0, device_type: int = 0, device: int = 0) -> None:
        self.uid = uid
        self.gid = gid
        self.device_type = device_type
        self.device = device

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Record{self._key()}"

    def _key(self) -> tuple[int, int, int, int]:
        return self.uid, self.gid, self.device_type, self.device

    def with_owner(self, uid: int, gid: int) -> Record:
        """Return the record with another owner."""
        return Record(uid, gid, self.device_type, self.device)


NOTHING = Record()
"""What no record stands for: a file of root's that is what it seems."""


def encode(record: Record) -> bytes:
    """Return the protobuf message of a record."""
    message = bytearray()
    for field, value in (
        (_FIELD_UID, record.uid),
        (_FIELD_GID, record.gid),
        (_FIELD_DEVICE_TYPE, record.device_type),
        (_FIELD_DEVICE, record.device),
    ):
        if value:
            message += _varint(field << 3) + _varint(value)
    return bytes(message)


def decode(message: bytes) -> Record:
    """Return the record of a protobuf message. Raises ValueError if it is malformed."""
    fields = dict.fromkeys((_FIELD_UID, _FIELD_GID, _FIELD_DEVICE_TYPE, _FIELD_DEVICE), 0)
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _read_varint(message, position)
            if tag >> 3 in fields:
                fields[tag >> 3] = value
        elif kind == 2:
            size, position = _read_varint(message, position)
            position += size
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if position > len(message):
            raise ValueError("truncated message")
    uid, gid, device_type, device = fields.values()
    if device_type not in _DEVICE_TYPES:
        raise ValueError(f"device type {device_type:#o}")
    # A uint32 field keeps the low bits, as protobuf's own decoders do.
    uid &= 0xFFFFFFFF
    gid &= 0xFFFFFFFF
    return Record(
        0 if uid == NOT_CHANGED else uid,
        0 if gid == NOT_CHANGED else gid,
        device_type,
        device & 0xFFFFFFFFFFFFFFFF,
    )


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("truncated message")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("overlong number")
