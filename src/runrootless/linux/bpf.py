"""Classic BPF as seccomp filters use it: <linux/bpf_common.h>, <linux/filter.h>, bpf(4).

Instructions are packed ``struct sock_filter``. Jumps are forward and relative to the
next instruction; a program is at most ``PROGRAM_LIMIT`` of them.
"""

from __future__ import annotations

import struct

PROGRAM_LIMIT = 4096
"""``BPF_MAXINSNS``."""

SIZE = 8
"""Size of an instruction in bytes."""

NUMBER = 0
"""Where ``struct seccomp_data`` has the number of the system call, 32 bits."""

ARCHITECTURE = 4
"""Where it has the AUDIT_ARCH_* of the call, 32 bits."""

INSTRUCTION = 8
"""Where it has the lower half of the address behind the call, on little-endian machines."""

_ARGUMENTS = 16
_INSTRUCTION = struct.Struct("=HBBI")
# BPF_LD | BPF_W | BPF_ABS, BPF_ALU | BPF_AND | BPF_K, BPF_JMP | ... | BPF_K, BPF_RET | BPF_K.
_LOAD = 0x20
_AND = 0x54
_JUMP = 0x05
_JUMP_IF_EQUAL = 0x15
_JUMP_IF_AT_LEAST = 0x35
_RETURN = 0x06


def argument(index: int, high: bool) -> int:
    """Return where ``struct seccomp_data`` has half of an argument, on little-endian machines."""
    return _ARGUMENTS + 8 * index + 4 * high


def load(offset: int) -> bytes:
    """Load the 32-bit word at ``offset`` of ``struct seccomp_data`` into the accumulator."""
    return _INSTRUCTION.pack(_LOAD, 0, 0, offset)


def keep_bits(mask: int) -> bytes:
    """Clear all bits of the accumulator but these."""
    return _INSTRUCTION.pack(_AND, 0, 0, mask)


def jump(distance: int) -> bytes:
    """Pass over as many instructions."""
    return _INSTRUCTION.pack(_JUMP, 0, 0, distance)


def if_equal(value: int, then: int, otherwise: int) -> bytes:
    """Pass over ``then`` instructions if the accumulator is ``value``, else ``otherwise``.

    Both are at most 255.
    """
    return _INSTRUCTION.pack(_JUMP_IF_EQUAL, then, otherwise, value)


def if_at_least(value: int, then: int, otherwise: int) -> bytes:
    """Do the same if the accumulator is ``value`` or greater."""
    return _INSTRUCTION.pack(_JUMP_IF_AT_LEAST, then, otherwise, value)


def finish(action: int) -> bytes:
    """End with an action: SECCOMP_RET_* of <linux/seccomp.h>, with its data."""
    return _INSTRUCTION.pack(_RETURN, 0, 0, action)
