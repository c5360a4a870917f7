"""Seccomp filters for the calling process: seccomp(2), <linux/filter.h>."""

from __future__ import annotations

from struct import Struct

from runrootless.linux.libc import address, c_int, c_ulong, check, function

INSTRUCTION = Struct("=HBBI")
"""``struct sock_filter``: code, jump if true, jump if false, operand."""

LOAD = 0x20
"""``BPF_LD | BPF_W | BPF_ABS``: load the 32 bits at an offset of ``struct seccomp_data``."""
JUMP_EQUAL = 0x15
"""``BPF_JMP | BPF_JEQ | BPF_K``."""
JUMP_GREATER_EQUAL = 0x35
"""``BPF_JMP | BPF_JGE | BPF_K``."""
RETURN = 0x06
"""``BPF_RET | BPF_K``."""

OFFSET_OF_NUMBER = 0
OFFSET_OF_ARCHITECTURE = 4

ALLOW = 0x7FFF0000
"""``SECCOMP_RET_ALLOW``."""
ERRNO = 0x00050000
"""``SECCOMP_RET_ERRNO``; the errno is in the lower 16 bits."""

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}
"""``AUDIT_ARCH_*`` by the name of the machine: <linux/audit.h>."""

# struct sock_fprog: the number of instructions, and where they are.
_PROGRAM = Struct("@HP")
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

_prctl = function("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)


def install(instructions: list[tuple[int, int, int, int]]) -> None:
    """Put this process and all its children to come under a filter, for good.

    ``instructions`` are fields of ``INSTRUCTION``.  As an unprivileged process has to, it also
    renounces new privileges by execve(2).  Raises OSError: EINVAL for a wrong filter or a kernel
    without seccomp.
    """
    code = bytearray(b"".join(INSTRUCTION.pack(*fields) for fields in instructions))
    program = bytearray(_PROGRAM.pack(len(instructions), address(code)))
    check(_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    check(_prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, address(program), 0, 0), "prctl")
