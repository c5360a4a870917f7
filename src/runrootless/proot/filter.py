"""The seccomp filter around a PRoot that has the host for its root directory."""

from __future__ import annotations

import os
from errno import ENOSYS

from runrootless.linux.seccomp_filter import (
    ALLOW,
    AUDIT_ARCHITECTURES,
    ERRNO,
    JUMP_EQUAL,
    JUMP_GREATER_EQUAL,
    LOAD,
    OFFSET_OF_ARCHITECTURE,
    OFFSET_OF_NUMBER,
    RETURN,
)
from runrootless.linux.syscall_numbers import NUMBERS
from runrootless.proot.command import FIRST_LATER_NUMBER, UNTRANSLATED

# With the 32-bit companion, which the kernel can run as well.
_MACHINES = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64",), "i686": ("i386",)}
# Calls of the x32 ABI, and the -2 that PRoot gives a call that is to fail.
_FIRST_SPECIAL_NUMBER = 0x40000000


def without_untranslated_calls() -> list[tuple[int, int, int, int]]:
    """Return the instructions of a filter that refuses what PRoot would not translate.

    The fields are those of ``linux.seccomp_filter.INSTRUCTION``.  Empty for a machine whose
    system call numbers are not known here.
    """
    instructions: list[tuple[int, int, int, int]] = []
    refuse = (RETURN, 0, 0, ERRNO | ENOSYS)
    for machine in _MACHINES.get(os.uname().machine, ()):
        block = [(LOAD, 0, 0, OFFSET_OF_NUMBER), (JUMP_GREATER_EQUAL, 0, 1, _FIRST_SPECIAL_NUMBER)]
        block += [(RETURN, 0, 0, ALLOW), (JUMP_GREATER_EQUAL, 0, 1, FIRST_LATER_NUMBER), refuse]
        for name in UNTRANSLATED:
            number = NUMBERS[machine].get(name)
            if number is not None:
                block += [(JUMP_EQUAL, 0, 1, number), refuse]
        block.append((RETURN, 0, 0, ALLOW))
        instructions += [
            (LOAD, 0, 0, OFFSET_OF_ARCHITECTURE),
            (JUMP_EQUAL, 0, len(block), AUDIT_ARCHITECTURES[machine]),
            *block,
        ]
    if instructions:
        instructions.append((RETURN, 0, 0, ALLOW))
    return instructions
