"""The table of intercepted calls against what it is made for."""

import importlib.util
import os
import re
from pathlib import Path

import pytest

from runrootless import launcher
from runrootless.emulation.fast_state import FastState
from runrootless.emulation.permissions.checks import Checks
from runrootless.emulation.table import (
    CHECKED_TABLE,
    CHECKS,
    FAST_TABLE,
    I386_CHECKS,
    I386_TABLE,
    TABLE,
    rows,
)
from runrootless.linux import seccomp, syscall_numbers
from runrootless.linux.seccomp import AUDIT_ARCHITECTURES
from support.emulators import new_emulator

CHECKOUT = Path(__file__).parents[3]
GENERATOR = CHECKOUT / "scripts/generate_syscall_numbers.py"
SEMANTICS = CHECKOUT / "docs/semantics.md"


@pytest.mark.parametrize("thorough", [False, True])
def test_every_call_has_a_handler(thorough: bool) -> None:
    handlers = new_emulator(thorough).handlers()
    for machine, architecture in AUDIT_ARCHITECTURES.items():
        for name, _, _ in rows(machine, thorough):
            number = syscall_numbers.NUMBERS[machine].get(name)
            assert number is None or callable(handlers[seccomp.NUMBER.pack(number, architecture)])


def test_every_call_of_the_fast_path_has_a_handler(tmp_path: Path) -> None:
    path = tmp_path / "fast.so"
    path.write_bytes(launcher.read("fast.so"))
    file = os.open(path, os.O_RDWR)
    handlers = new_emulator(fast=FastState(file)).handlers()
    os.close(file)
    for machine, architecture in AUDIT_ARCHITECTURES.items():
        for name, _, _ in rows(machine, fast=True):
            number = syscall_numbers.NUMBERS[machine].get(name)
            assert number is None or callable(handlers[seccomp.NUMBER.pack(number, architecture)])


@pytest.mark.parametrize("machine", AUDIT_ARCHITECTURES)
def test_every_call_is_documented(machine: str) -> None:
    named = set(re.findall(r"\w+", SEMANTICS.read_text()))
    calls = {name for name, _, _ in rows(machine, thorough=True, fast=True)}
    # 32-bit programs have further ones of the same meaning.
    assert {c for c in calls if not {c, re.sub(r"(_time64|32|64)$", "", c)} & named} == set()


@pytest.mark.parametrize("thorough", [False, True])
def test_one_handler_for_one_call(thorough: bool) -> None:
    for machine in AUDIT_ARCHITECTURES:
        targets: dict[str, set[str]] = {}
        for name, target, _ in rows(machine, thorough, fast=True):
            targets.setdefault(name, set()).add(target)
        assert [name for name, found in targets.items() if len(found) > 1] == []


def test_a_condition_is_on_every_rule_of_its_call_or_on_none() -> None:
    table = TABLE + I386_TABLE + CHECKED_TABLE + FAST_TABLE
    conditional = {name for name, _, condition in table if condition}
    assert conditional.isdisjoint(name for name, _, condition in table if not condition)


def test_thorough() -> None:
    for machine in AUDIT_ARCHITECTURES:
        checks = I386_CHECKS if machine == "i386" else CHECKS
        some, every = rows(machine), rows(machine, thorough=True)
        more = list(CHECKED_TABLE)
        assert {row[0] for row in every} == {row[0] for row in some + more} | checks.keys()
        assert [row for row in every if row[0] not in checks] == [
            row for row in some + more if row[0] not in checks
        ]
        for name, target, condition in every:
            if name in checks:
                known = {row[1] for row in some if row[0] == name}
                assert (target, condition) == (next(iter(known), f"checks.{checks[name]}"), None)
        assert all(hasattr(Checks, method) for method in checks.values())
        for name in checks:
            assert [row[2] for row in every if row[0] == name] == [None]


@pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="linux-libc-dev of amd64 holds all three tables"
)
def test_numbers_are_those_of_the_kernels_headers() -> None:
    specification = importlib.util.spec_from_file_location("generator", GENERATOR)
    assert specification and specification.loader
    generator = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(generator)
    headers = generator.read_headers()
    for machine, numbers in syscall_numbers.NUMBERS.items():
        assert {name: headers[machine][name] for name in numbers} == numbers
        calls = {name for name, _, _ in rows(machine, thorough=True, fast=True)}
        assert calls & headers[machine].keys() <= numbers.keys()
    assert len(syscall_numbers.NUMBERS["aarch64"]) > 40
