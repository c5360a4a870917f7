"""The filter of ``emulate`` against the table, and against what libseccomp makes of it."""

import struct
from collections.abc import Callable
from functools import lru_cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runrootless.emulation import seccomp_filter
from runrootless.emulation.argument_widths import INTS
from runrootless.emulation.seccomp_filter import FAST_PLACE
from runrootless.emulation.table import PASSED, SPLIT, rows
from runrootless.linux.bpf import PROGRAM_LIMIT
from runrootless.linux.seccomp import (
    AUDIT_ARCHITECTURES,
    RETURN_ALLOW,
    RETURN_ERRNO,
    RETURN_NOTIFY,
)
from runrootless.linux.syscall_numbers import NUMBERS
from support import bpf

ENOSYS = RETURN_ERRNO | 38

Judge = Callable[[int, list[int]], int]


def program(machine: str, action: int = RETURN_NOTIFY) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("=HBBI", seccomp_filter.build(machine, action)))


PROGRAMS = {machine: program(machine) for machine in seccomp_filter.MACHINES}
PAIRS = [
    (machine, other) for machine, others in seccomp_filter.MACHINES.items() for other in others
]

# What conditions look at: flags that are wanted, others, and both halves of an argument.
arguments = st.lists(
    st.one_of(
        st.integers(0, 40),
        st.sampled_from([0o100, 0o20000000, 0o20000100, 0x20000, 1 << 32, 15 | 1 << 32, 17]),
        st.integers(0, (1 << 64) - 1),
    ),
    min_size=6,
    max_size=6,
)
numbers = st.one_of(
    st.integers(0, 600),
    st.sampled_from(sorted({number for table in NUMBERS.values() for number in table.values()})),
)


def decide(machine: str, other: str, number: int, given: list[int]) -> int:
    data = struct.pack("=IIQ6Q", number, AUDIT_ARCHITECTURES[other], 0, *given)
    return bpf.run(PROGRAMS[machine], data)


def holds(condition: tuple[int, str, int, int], given: list[int]) -> bool:
    index, operator, value, second = condition
    if operator == "SCMP_CMP_EQ":
        return given[index] == value
    assert operator == "SCMP_CMP_MASKED_EQ"
    return given[index] & value == second


@pytest.mark.parametrize(("machine", "other"), PAIRS)
@settings(max_examples=300)
@given(number=numbers, given_arguments=arguments)
def test_it_does_what_the_table_says(
    machine: str, other: str, number: int, given_arguments: list[int]
) -> None:
    conditions = [
        condition for name, _, condition in rows(other) if NUMBERS[other].get(name) == number
    ]
    wanted = any(condition is None or holds(condition, given_arguments) for condition in conditions)
    assert decide(machine, other, number, given_arguments) == (
        RETURN_NOTIFY if wanted else RETURN_ALLOW
    )


NUMBER_OF_FAST = 0x123456789ABCDEF0
KEPT = (1 << 64) - 1
FAST_PROGRAMS = {
    machine: list(
        struct.iter_unpack(
            "=HBBI", seccomp_filter.build(machine, RETURN_NOTIFY, number=NUMBER_OF_FAST)
        )
    )
    for machine in seccomp_filter.MACHINES
}


@pytest.mark.parametrize(("machine", "other"), PAIRS)
@settings(max_examples=300)
@given(
    number=numbers,
    given_arguments=arguments,
    last=st.sampled_from([0, 1, 1 << 32, 1 << 63]),
    address=st.sampled_from([0, FAST_PLACE, 0x7F00_0000_0000 + FAST_PLACE, FAST_PLACE + 2]),
)
def test_with_the_fast_path(
    machine: str, other: str, number: int, given_arguments: list[int], last: int, address: int
) -> None:
    """A number is as good as no call of the agent: the right one, at its place, for some calls."""
    for used in (NUMBER_OF_FAST, NUMBER_OF_FAST ^ last, given_arguments[5]):
        given = [*given_arguments[:5], used]
        for low, high in (
            places for name, places in SPLIT.items() if number == NUMBERS[other].get(name)
        ):
            given[low] = given[low] & 0xFFFFFFFF | used << 32 & KEPT
            given[high] = given[high] & 0xFFFFFFFF | used >> 32 << 32
        data = struct.pack("=IIQ6Q", number, AUDIT_ARCHITECTURES[other], address, *given)
        conditions = [
            condition
            for name, _, condition in rows(other, fast=True)
            if NUMBERS[other].get(name) == number
        ]
        wanted = any(condition is None or holds(condition, given) for condition in conditions)
        for name, passed in PASSED.items():
            is_it = other == machine and NUMBERS[other].get(name) == number
            if is_it and used == NUMBER_OF_FAST and address % 4096 == FAST_PLACE:
                wanted = wanted and not all(holds(condition, given) for condition in passed)
        assert bpf.run(FAST_PROGRAMS[machine], data) == (RETURN_NOTIFY if wanted else RETURN_ALLOW)


def test_nobody_sets_limits_by_the_number() -> None:
    for machine, program in FAST_PROGRAMS.items():
        number = NUMBERS[machine]["prlimit64"]
        for new, action in ((0, RETURN_ALLOW), (1, RETURN_NOTIFY), (1 << 32, RETURN_NOTIFY)):
            given = [0, 15, new, 0, 0, NUMBER_OF_FAST]
            head = number, AUDIT_ARCHITECTURES[machine], FAST_PLACE
            assert bpf.run(program, struct.pack("=IIQ6Q", *head, *given)) == action


@pytest.mark.parametrize(
    ("name", "given", "action"),
    [
        ("fchownat", [0, 0, KEPT, KEPT, 0], RETURN_ALLOW),
        ("fchownat", [0, 0, 0, KEPT, 0], RETURN_NOTIFY),
        ("fchownat", [0, 0, KEPT, 0, 0], RETURN_NOTIFY),
        ("fchown", [0, KEPT, KEPT, 0, 0], RETURN_ALLOW),
        ("fchown", [0, 1, 1, 0, 0], RETURN_NOTIFY),
        ("setxattr", [0, 0, 0, 0, 1], RETURN_ALLOW),
        ("setxattr", [0, 0, 0, 0, 0], RETURN_NOTIFY),
        ("fsetxattr", [0, 0, 0, 0, 2], RETURN_NOTIFY),
    ],
)
def test_what_the_number_is_not_good_for(name: str, given: list[int], action: int) -> None:
    """Nobody gives files away in the kernel by it, or replaces attributes."""
    for machine, program in FAST_PROGRAMS.items():
        head = NUMBERS[machine][name], AUDIT_ARCHITECTURES[machine], FAST_PLACE
        data = struct.pack("=IIQ6Q", *head, *given, NUMBER_OF_FAST)
        assert bpf.run(program, data) == action


REGISTERS = 6
GARBAGE = (1 << 32, 1 << 63, 0xFFFFFFFF << 32)
# Handlers compare these once more: the request of ptrace(2) is a long.
LONGS = {("ptrace", 0)}


def judges_of(machine: str, other: str) -> list[Judge]:
    judges: list[Judge] = [lambda number, given: decide(machine, other, number, given)]
    if other == "x86_64" and bpf.load_library() is not None:
        judges.append(lambda number, given: runtimes_filter().of_number(number, *given))
    return judges


@pytest.mark.parametrize(("machine", "other"), PAIRS)
def test_upper_halves_of_what_is_an_int_make_no_difference(machine: str, other: str) -> None:
    """The kernel does not see them: what is notified with zeros there is with anything."""
    compared = 0
    for name, _, condition in rows(other, thorough=True):
        number = NUMBERS[other].get(name)
        if number is None or name not in INTS:
            continue
        values = [0, 1, 0xFFFFFFFF]
        if condition is not None:
            is_int = condition[0] in INTS[name] or (name, condition[0]) in LONGS
            assert is_int, f"{name} looks at more than an int"
            values += [condition[3], condition[3] ^ 1]
        for judge in judges_of(machine, other):
            for index, value, garbage in product(INTS[name], values, GARBAGE):
                given = [0] * REGISTERS
                given[index] = value
                wanted = judge(number, given)
                given[index] |= garbage
                assert judge(number, given) == wanted, (name, index, hex(given[index]))
                compared += 1
    assert compared > 1000


@pytest.mark.parametrize(("machine", "other"), PAIRS)
def test_every_condition_looks_at_an_int_only(machine: str, other: str) -> None:
    for name, _, condition in rows(other):
        if condition is not None and name in NUMBERS[other]:
            _, operator, mask, _ = condition
            assert operator == "SCMP_CMP_MASKED_EQ" and mask <= 0xFFFFFFFF, name


@pytest.mark.parametrize(("machine", "other"), PAIRS)
def test_every_call_of_the_table_is_notified(machine: str, other: str) -> None:
    for name, _, condition in rows(other):
        number = NUMBERS[other].get(name)
        given = [0] * 6
        if condition is not None:
            given[condition[0]] = condition[3] or condition[2]
        if number is not None:
            assert decide(machine, other, number, given) == RETURN_NOTIFY, name


@settings(max_examples=300)
@given(number=numbers, given_arguments=arguments)
def test_libseccomp_makes_the_same_of_the_table(number: int, given_arguments: list[int]) -> None:
    library = bpf.load_library()
    if library is None:
        pytest.skip("libseccomp.so.2 is not installed")
    name = library.seccomp_syscall_resolve_num_arch(0xC000003E, number)
    if not name:
        return
    theirs = runtimes_filter()(name.decode(), *given_arguments)
    assert decide("x86_64", "x86_64", number, given_arguments) == theirs


@lru_cache
def runtimes_filter() -> bpf.Filter:
    library = bpf.load_library()
    assert library is not None
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": bpf.rules(rows("x86_64"), "SCMP_ACT_NOTIFY"),
    }
    return bpf.Filter(library, profile)


@pytest.mark.parametrize("number", [0x40000000, 0x40000004, 0x400000FF, 0xFFFFFFFF])
def test_calls_of_the_x32_abi_are_refused(number: int) -> None:
    assert decide("x86_64", "x86_64", number, [0] * 6) == ENOSYS


def test_what_is_not_known_is_let_through() -> None:
    arm = struct.pack("=IIQ6Q", 92, 0x40000028, 0, *[0] * 6)
    assert [bpf.run(found, arm) for found in PROGRAMS.values()] == [RETURN_ALLOW] * 2


def test_another_action_and_other_calls() -> None:
    built = seccomp_filter.build("x86_64", RETURN_ERRNO, [("chown", "", None)])
    found = list(struct.iter_unpack("=HBBI", built))
    for name, action in (("chown", RETURN_ERRNO), ("lchown", RETURN_ALLOW)):
        number = NUMBERS["x86_64"][name]
        data = struct.pack("=IIQ6Q", number, AUDIT_ARCHITECTURES["x86_64"], 0, *[0] * 6)
        assert bpf.run(found, data) == action


def test_an_operator_that_is_not_known_is_an_error() -> None:
    with pytest.raises(ValueError, match="SCMP_CMP_GT"):
        seccomp_filter.build("x86_64", RETURN_NOTIFY, [("chown", "", (0, "SCMP_CMP_GT", 1, 0))])


def test_it_is_not_too_long_for_the_kernel() -> None:
    assert all(len(found) < PROGRAM_LIMIT for found in PROGRAMS.values())
