"""What the headers of an ELF file say: elf(5)."""

import struct
from dataclasses import dataclass

TYPE_EXECUTABLE = 2
"""``ET_EXEC``: linked for a fixed address."""

SEGMENT_DYNAMIC = 2
SEGMENT_INTERPRETER = 3
SEGMENT_STACK = 0x6474E551
"""``PT_GNU_STACK``, whose flags are those of the stack."""

EXECUTABLE = 1
WRITABLE = 2

_MACHINES = {62: "x86_64", 183: "aarch64"}
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")


@dataclass
class Elf:
    """A 64-bit file: its ``ET_*``, its machine, and each segment's ``PT_*`` and ``PF_*`` flags."""

    type: int
    machine: str
    segments: list[tuple[int, int]]

    def flags(self, kind: int) -> list[int]:
        """Return the flags of all segments of a kind."""
        return [flags for other, flags in self.segments if other == kind]


def parse(data: bytes) -> Elf:
    """Return the headers of a file. Raises ValueError and struct.error where it is none."""
    ident, kind, machine, _, _, offset, _, _, _, size, count, *_ = _HEADER.unpack_from(data)
    if ident[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a little-endian 64-bit ELF file")
    segments = [_SEGMENT.unpack_from(data, offset + index * size)[:2] for index in range(count)]
    return Elf(kind, _MACHINES[machine], segments)
