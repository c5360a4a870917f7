"""The intercepted calls as a seccomp filter, which is made when the package is built.

A call that is not on the list is allowed, one of an unknown architecture as well. Calls of
the x32 ABI fail with ENOSYS, as on the many kernels that lack it.

The numbers are found by bisection: most calls are on no list, and pass half a dozen
comparisons on kernels that do not remember that they are allowed (before Linux 5.11).
"""

from __future__ import annotations

import errno
import os

from runrootless.emulation.table import PASSED, SPLIT, rows
from runrootless.linux import bpf
from runrootless.linux.seccomp import (
    AUDIT_ARCHITECTURES,
    RETURN_ALLOW,
    RETURN_ERRNO,
    SYSTEM_CALL,
)
from runrootless.linux.syscall_numbers import NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import TypeAlias

    from runrootless.emulation.table import Condition

    Row: TypeAlias = "tuple[str, str, Condition | None]"
    Block: TypeAlias = tuple[int, bytes]

MACHINES = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64",)}
"""Machine, as uname(2) tells it, to those whose programs it runs and that are emulated."""

_X32_BIT = 0x40000000
_WORD = 0xFFFFFFFF
_UPPER = _WORD << 32
_LEAF = 3
_FAR = 255
_SIXTH = 5
_PAGE_MASK = 0xFFF
FAST_PLACE = 0xA5C
"""Where in a page of theirs the calls of the fast path return to: native/fast.c."""


def build(
    machine: str,
    action: int,
    calls: Sequence[Row] | None = None,
    thorough: bool = False,
    number: int | None = None,
) -> bytes:
    """Return a filter, as BPF instructions, that answers the intercepted calls with ``action``.

    ``machine`` is a key of ``MACHINES`` and ``action`` a SECCOMP_RET_* with its data.
    ``calls`` are rows as the table's, in place of all of those for each machine, which
    ``thorough`` chooses from. With ``number`` it is that for a container with the fast path,
    whose calls have that as their sixth argument, or as ``table.SPLIT`` says.
    """
    parts = [bpf.load(bpf.ARCHITECTURE)]
    for program in MACHINES[machine]:
        table = rows(program, thorough, number is not None) if calls is None else calls
        body = _for_machine(program, table, action, number if program == machine else None)
        # The bodies are longer than a conditional jump reaches.
        parts += [bpf.if_equal(AUDIT_ARCHITECTURES[program], 1, 0), bpf.jump(_length(body)), body]
    parts.append(bpf.finish(RETURN_ALLOW))
    return b"".join(parts)


def answering_seccomp(action: int) -> bytes:
    """Return what answers seccomp(2) with ``action``, and goes on with what follows.

    It is for all programs that this machine runs.
    """
    parts = []
    for program in MACHINES[os.uname().machine]:
        number = SYSTEM_CALL[program]
        parts += [
            bpf.load(bpf.ARCHITECTURE),
            bpf.if_equal(AUDIT_ARCHITECTURES[program], 0, 3),
            bpf.load(bpf.NUMBER),
            bpf.if_equal(number, 0, 1),
            bpf.finish(action),
        ]
    return b"".join(parts)


def _for_machine(
    machine: str, calls: Sequence[Row], action: int, secret: int | None = None
) -> bytes:
    conditions: dict[int, list[Condition]] = {}
    for name, _, condition in calls:
        number = NUMBERS[machine].get(name)
        if number is not None:
            conditions.setdefault(number, []).extend([condition] if condition else [])
    blocks = [(number, _block(conditions[number], action)) for number in sorted(conditions)]
    if secret is not None:
        passes = {
            NUMBERS[machine][name]: _pass(_numbered(name, secret), conditions)
            for name, conditions in PASSED.items()
            if name in NUMBERS[machine]
        }
        blocks = [(number, passes.get(number, b"") + block) for number, block in blocks]
    head = bpf.load(bpf.NUMBER)
    if machine == "x86_64":
        refusal = bpf.finish(RETURN_ERRNO | errno.ENOSYS)
        head += bpf.if_at_least(_X32_BIT, 0, 1) + refusal
    return head + _search(blocks)


def _search(blocks: Sequence[Block]) -> bytes:
    """Return what finds the accumulator among the sorted numbers and does as its block says."""
    if len(blocks) <= _LEAF:
        parts = [bpf.if_equal(number, 0, _length(block)) + block for number, block in blocks]
        return b"".join(parts) + bpf.finish(RETURN_ALLOW)
    middle = len(blocks) // 2
    low, high = _search(blocks[:middle]), _search(blocks[middle:])
    if _length(low) <= _FAR:
        return bpf.if_at_least(blocks[middle][0], _length(low), 0) + low + high
    return bpf.if_at_least(blocks[middle][0], 0, 1) + bpf.jump(_length(low)) + low + high


def _block(conditions: Sequence[Condition], action: int) -> bytes:
    """Return what ends with ``action`` if one of the conditions holds, or there is none."""
    if not conditions:
        return bpf.finish(action)
    tests = b"".join(_test(condition, bpf.finish(action)) for condition in conditions)
    return tests + bpf.finish(RETURN_ALLOW)


def _numbered(name: str, secret: int) -> tuple[Condition, ...]:
    """Return what holds for a call of the fast path that has the number."""
    if name not in SPLIT:
        return ((_SIXTH, "SCMP_CMP_EQ", secret, 0),)
    low, high = SPLIT[name]
    halves = ((low, secret << 32 & _UPPER), (high, secret & _UPPER))
    return tuple((index, "SCMP_CMP_MASKED_EQ", _UPPER, half) for index, half in halves)


def _pass(numbered: Sequence[Condition], conditions: Sequence[Condition]) -> bytes:
    """Return what allows a call of the fast path, and goes on otherwise.

    The number may be left in a register, and be part of a call that a C library makes.
    """
    test = bpf.finish(RETURN_ALLOW)
    for condition in conditions:
        test = _test(condition, test)
    place = bpf.load(bpf.INSTRUCTION) + bpf.keep_bits(_PAGE_MASK)
    place += bpf.if_equal(FAST_PLACE, 0, _length(test))
    test = place + test
    for condition in numbered:
        test = _test(condition, test)
    return test


def _test(condition: Condition, then: bytes) -> bytes:
    """Return what does ``then`` if the condition holds, and goes on otherwise."""
    index, operator, value, second = condition
    if operator == "SCMP_CMP_EQ":
        mask, wanted = (1 << 64) - 1, value
    elif operator == "SCMP_CMP_MASKED_EQ":
        mask, wanted = value, second
    else:
        raise ValueError(f"no instructions for {operator}")
    test = then
    for high in (True, False):
        shift = 32 * high
        bits = mask >> shift & _WORD
        if bits:
            keep = b"" if bits == _WORD else bpf.keep_bits(bits)
            compare = bpf.if_equal(wanted >> shift & bits, 0, _length(test))
            test = bpf.load(bpf.argument(index, high)) + keep + compare + test
    return test


def _length(program: bytes) -> int:
    return len(program) // bpf.SIZE
