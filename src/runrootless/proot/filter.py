"""The seccomp filter around a PRoot that has the host for its root directory."""

from __future__ import annotations

import os
from errno import ENOSYS

from runrootless.emulation.seccomp_filter import MACHINES, build
from runrootless.linux import bpf
from runrootless.linux.process import set_no_new_privileges
from runrootless.linux.seccomp import AUDIT_ARCHITECTURES, RETURN_ALLOW, RETURN_ERRNO, install
from runrootless.linux.syscall_numbers import NUMBERS
from runrootless.proot.command import FIRST_LATER_NUMBER, UNTRANSLATED

# With the 32-bit companion, which the kernel can run as well.
_MACHINES = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64",), "i686": ("i386",)}
# Calls of the x32 ABI, and the -2 that PRoot gives a call that is to fail.
_FIRST_SPECIAL_NUMBER = 0x40000000


def refuse_untranslated_calls() -> None:
    """Let the calls fail, in this process and its children, that PRoot would not translate.

    Nothing happens on a machine whose system call numbers are not known here. Raises OSError
    where the kernel has no seccomp filters.
    """
    refuse, allow = bpf.finish(RETURN_ERRNO | ENOSYS), bpf.finish(RETURN_ALLOW)
    program = b""
    for machine in _MACHINES.get(os.uname().machine, ()):
        block = bpf.load(bpf.NUMBER) + bpf.if_at_least(_FIRST_SPECIAL_NUMBER, 0, 1) + allow
        block += bpf.if_at_least(FIRST_LATER_NUMBER, 0, 1) + refuse
        for name in UNTRANSLATED:
            number = NUMBERS[machine].get(name)
            if number is not None:
                block += bpf.if_equal(number, 0, 1) + refuse
        block += allow
        architecture = AUDIT_ARCHITECTURES[machine]
        program += bpf.load(bpf.ARCHITECTURE)
        program += bpf.if_equal(architecture, 0, len(block) // bpf.SIZE) + block
    if program:
        set_no_new_privileges()
        install(program + allow, 0)


def refuse(names: tuple[str, ...], number: int) -> None:
    """Let these calls fail with an errno in this process and its children, if they are known.

    Raises OSError where the kernel has no seccomp filters.
    """
    machine = os.uname().machine
    if machine in MACHINES:
        set_no_new_privileges()
        rows = [(name, "", None) for name in names]
        install(build(machine, RETURN_ERRNO | number, rows), 0)
