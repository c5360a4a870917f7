"""What the wheel has installed, against the sources that it was built of."""

import ctypes
import os
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import pytest

import runrootless
from runrootless.emulation.fast_state import PLACEHOLDER
from runrootless.emulation.seccomp_filter import build
from runrootless.engines.zero import filter_program
from runrootless.linux.bpf import PROGRAM_LIMIT, SIZE
from runrootless.linux.seccomp import RETURN_NOTIFY
from support import elf

PACKAGE = Path(runrootless.__file__).parent
NATIVE = PACKAGE / "native"
CHECKOUT = Path(__file__).parents[2]
MACHINE = os.uname().machine


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.suffix in (".py", ".typed")
    }


def test_all_sources_are_installed() -> None:
    installed = files(PACKAGE)
    assert "py.typed" in installed
    assert installed == files(CHECKOUT / "src" / "runrootless")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("notify", lambda machine: build(machine, RETURN_NOTIFY)),
        ("thorough", lambda machine: build(machine, RETURN_NOTIFY, thorough=True)),
        ("zero", filter_program),
        ("fast", lambda machine: build(machine, RETURN_NOTIFY, number=PLACEHOLDER)),
    ],
)
def test_filters_are_those_of_the_table(name: str, make: Callable[[str], bytes]) -> None:
    program = (NATIVE / f"{name}.bpf").read_bytes()
    assert program == make(MACHINE)
    assert 0 < len(program) // SIZE <= PROGRAM_LIMIT


def test_what_is_native() -> None:
    expected = {"launcher", "notify.bpf", "thorough.bpf", "zero.bpf", "fast.bpf", "fast.so"}
    if (CHECKOUT / "native" / "loop.c").exists():
        expected.add("loop.so")
        ctypes.CDLL(str(NATIVE / "loop.so"))
    assert set(os.listdir(NATIVE)) == expected
    assert elf.parse((NATIVE / "launcher").read_bytes()).machine == MACHINE
    assert os.access(NATIVE / "launcher", os.X_OK)


def test_the_wheel_is_for_this_machine_and_any_python() -> None:
    metadata = distribution("runrootless")
    assert f"Tag: py3-none-linux_{MACHINE}" in (metadata.read_text("WHEEL") or "").splitlines()
    assert metadata.version == runrootless.__version__
    assert (metadata.read_text("LICENSE") or "") == (CHECKOUT / "LICENSE").read_text()
