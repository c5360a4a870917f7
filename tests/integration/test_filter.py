"""What the kernel filters in a container, as it has it: PTRACE_SECCOMP_GET_FILTER of ptrace(2)."""

import ctypes
import errno
import importlib.util
import itertools
import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MakeBundle, both_runtimes
from runrootless.emulation.argument_widths import INTS
from runrootless.emulation.seccomp_filter import MACHINES
from runrootless.emulation.table import rows
from runrootless.linux.bpf import PROGRAM_LIMIT
from runrootless.linux.seccomp import AUDIT_ARCHITECTURES, RETURN_ALLOW, RETURN_NOTIFY
from runrootless.linux.syscall_numbers import NUMBERS
from support.containers import Runrootless
from support.users import AS_ROOT

SUPPORT = Path(__file__).parents[1] / "support"

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_SECCOMP_GET_FILTER = (
    17,
    0x4206,
    0x4207,
    0x420C,
)
WALL = 0x40000000
GARBAGE = (0, 1 << 32, 1 << 63, 0xFFFFFFFF << 32)
Program = list[tuple[int, int, int, int]]

# Calls that are not for the agent, of those that have a condition; and none else is named.
NATIVE: dict[str, list[tuple[int, int]]] = {
    "prctl": [(0, option) for option in range(60)],
    "getsockopt": [(2, option) for option in range(80)],
    "setsockopt": [(2, option) for option in range(80)],
    "kill": [(0, pid) for pid in (0, 1, 2, 12345, 0xFFFFFFFE, 0x7FFFFFFF)],
    "getpriority": [(0, which) for which in (0, 1, 3)],
    "ioprio_get": [(0, which) for which in (0, 1, 2, 4)],
    "prlimit64": [(1, limit) for limit in range(20)],
    "getrlimit": [(0, limit) for limit in range(20)],
    "setrlimit": [(0, limit) for limit in range(20)],
    "openat": [(2, flags) for flags in (0, 1, 0o2000000, 0o4000, 0o200000)],
    "clone": [(0, flags) for flags in (17, 0x3D0F00, 0x4000, 0x02000000)],
    "socketcall": [(0, number) for number in range(24)],
}


def interpreter() -> ctypes.CDLL:
    """Return the functions of support/bpf.py."""
    specification = importlib.util.spec_from_file_location("bpf_of_filter", SUPPORT / "bpf.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules["bpf_of_filter"] = module
    specification.loader.exec_module(module)
    return module  # type: ignore[return-value]


def filters_of(pid: int) -> Iterator[Program]:
    """Return the seccomp filters of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace.restype = ctypes.c_long
    assert libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0
    try:
        assert libc.ptrace(PTRACE_INTERRUPT, pid, None, None) == 0
        os.waitpid(pid, WALL)
        for index in itertools.count():
            buffer = ctypes.create_string_buffer(8 * PROGRAM_LIMIT)
            size = libc.ptrace(PTRACE_SECCOMP_GET_FILTER, pid, index, buffer)
            if size < 0:
                number = ctypes.get_errno()
                if number == errno.ENOENT:
                    return
                pytest.skip(f"this kernel does not show filters: {os.strerror(number)}")
            yield list(struct.iter_unpack("=HBBI", buffer.raw[: 8 * size]))
    finally:
        libc.ptrace(PTRACE_DETACH, pid, None, None)


@both_runtimes
@pytest.mark.skipif(not AS_ROOT, reason="only root may look at filters")
@pytest.mark.skipif(os.uname().machine not in MACHINES, reason="another machine")
def test_what_is_notified(bundle: MakeBundle, runrootless: Runrootless) -> None:
    name = runrootless.new_id()
    runrootless("run", "--detach", "--bundle", bundle().script("sleep 1000000").path, name).check()
    try:
        state = json.loads(runrootless("state", name).check().stdout)
        programs = list(filters_of(state["pid"]))
    finally:
        runrootless("delete", "--force", name).check()
    assert programs
    run = interpreter().run
    for machine in MACHINES[os.uname().machine]:
        conditions: dict[str, list[tuple[int, int, int]]] = {}
        for call, _, condition in rows(machine):
            conditions.setdefault(call, [])
            if condition is not None:
                index, _, mask, value = condition
                conditions[call].append((index, mask, value))
        seen = set()
        for call, given in NATIVE.items():
            for index, value in (
                *given,
                *((at, wanted) for at, _, wanted in conditions.get(call, ())),
            ):
                for garbage in GARBAGE if machine == "x86_64" and call in INTS else (0,):
                    registers = [0] * 6
                    registers[index] = value | garbage
                    number, architecture = NUMBERS[machine].get(call), AUDIT_ARCHITECTURES[machine]
                    if number is None:
                        continue
                    data = struct.pack("=IIQ6Q", number, architecture, 0, *registers)
                    verdict = min(run(program, data) for program in programs)
                    wanted = any(
                        registers[at] & mask == bits for at, mask, bits in conditions.get(call, ())
                    )
                    seen.add(wanted)
                    expected = RETURN_NOTIFY if wanted else RETURN_ALLOW
                    assert verdict == expected, (machine, call, index, hex(registers[index]))
        assert seen == {True, False}
