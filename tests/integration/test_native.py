"""The native parts, built for each machine from the same sources, with all warnings as errors."""

import base64
import csv
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest

from runrootless.emulation.fast_state import MARK, PLACEHOLDER
from runrootless.emulation.seccomp_filter import build
from runrootless.engines.zero import filter_program
from runrootless.linux.elf import needed
from runrootless.linux.seccomp import RETURN_NOTIFY
from support import elf

CHECKOUT = Path(__file__).parents[2]
SOURCES = (
    *("CHANGELOG.md", "LICENSE", "README.md", "bin", "meson.build", "native", "packaging"),
    *("pyproject.toml", "src"),
)
STRICT = ["-Dwarning_level=2", "-Dwerror=true"]
# meson-python is one of Debian's packages, and so is to be what it calls.
PYTHON = "/usr/bin/python3"
ENVIRONMENT = {**os.environ, "PATH": "/usr/bin:/bin"}
ENVIRONMENT.pop("CC", None)
BUILD_WHEEL = """
import sys
sys.path.append("native")
import build_backend
print(build_backend.build_wheel(".", {"setup-args": sys.argv[1:]}))
"""


def cross_file(machine: str) -> list[str]:
    """Return the arguments for meson that have it build for a machine."""
    if machine == os.uname().machine:
        return []
    return ["--cross-file", str(CHECKOUT / "native" / f"{machine}.ini")]


def run(*command: str, directory: Path) -> str:
    result = subprocess.run(
        command, cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is made of."""
    directory = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source, target = CHECKOUT / name, directory / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    return directory


@pytest.fixture(scope="module", params=sorted({os.uname().machine, "aarch64"}))
def built(
    request: pytest.FixtureRequest, sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A machine, and the directory in which all has been built for it."""
    machine: str = request.param
    directory = tmp_path_factory.mktemp(machine)
    arguments = [*STRICT, *cross_file(machine)]
    run("meson", "setup", *arguments, str(sources), str(directory), directory=sources)
    run("ninja", "-C", str(directory), directory=sources)
    return machine, directory


@pytest.mark.parametrize("name", ["launcher", "runrootless"])
def test_programs_need_nothing(built: tuple[str, Path], name: str) -> None:
    machine, directory = built
    data = (directory / "native" / name).read_bytes()
    launcher = elf.parse(data)
    assert launcher.machine == machine
    assert launcher.type == elf.TYPE_EXECUTABLE
    assert launcher.flags(elf.SEGMENT_INTERPRETER) == []
    assert launcher.flags(elf.SEGMENT_DYNAMIC) == []
    (stack,) = launcher.flags(elf.SEGMENT_STACK)
    assert not stack & elf.EXECUTABLE
    both = elf.WRITABLE | elf.EXECUTABLE
    assert not [flags for _, flags in launcher.segments if flags & both == both]
    assert len(data) < 8192


def test_the_object_of_the_fast_path(built: tuple[str, Path]) -> None:
    """Two pieces, of which none is both written to and executed.

    All is its own, but for what it finds out about the C library where there is one.
    """
    machine, directory = built
    path = directory / "native" / "fast.so"
    data = path.read_bytes()
    found = elf.parse(data)
    assert found.machine == machine
    both = elf.WRITABLE | elf.EXECUTABLE
    loaded = [flags for kind, flags in found.segments if kind == 1]
    assert len(loaded) == 2
    assert not [flags for flags in loaded if flags & both == both]
    (stack,) = found.flags(elf.SEGMENT_STACK)
    assert not stack & elf.EXECUTABLE
    file = os.open(path, os.O_RDONLY)
    assert needed(file, machine) == []
    os.close(file)
    symbols = run("readelf", "--dyn-syms", "-W", str(path), directory=directory)
    undefined = [line.split() for line in symbols.splitlines() if " UND " in line]
    named = {words[-1]: words[4] for words in undefined if words[-1] != "UND"}
    wanted = "__errno_location dlsym gnu_get_libc_version group_member pthread_testcancel"
    assert named == dict.fromkeys(wanted.split(), "WEAK")
    assert len(data) < 40960
    assert data.index(MARK) % 4096 == 0


def test_launcher_has_one_source(built: tuple[str, Path]) -> None:
    machine, directory = built
    targets = json.loads(run("meson", "introspect", "--targets", ".", directory=directory))
    (launcher,) = [target for target in targets if target["name"] == "launcher"]
    names = {
        os.path.basename(path)
        for group in launcher["target_sources"]
        for path in group.get("sources", [])
    }
    assert names == {"launcher.c", f"start-{machine}.S"}


def test_launcher_called_wrongly(built: tuple[str, Path]) -> None:
    machine, directory = built
    emulator = [] if machine == os.uname().machine else [f"qemu-{machine}"]
    command = [*emulator, str(directory / "native" / "launcher")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "runrootless" in result.stderr


def test_command_becomes_the_script_beside_it(built: tuple[str, Path]) -> None:
    machine, directory = built
    emulator = [] if machine == os.uname().machine else [f"qemu-{machine}"]
    script = directory / "native" / "runrootless-python"
    # No shell: dash unblocks all signals.
    script.write_text(
        f"#!{PYTHON} -IS\nimport os, sys\n"
        "print(os.environ['RUNROOTLESS_COMMAND'], sys.argv[1:])\n"
        "print(next(line for line in open('/proc/self/status') if 'SigBlk' in line))\n"
    )
    script.chmod(0o755)
    program = str(directory / "native" / "runrootless")
    result = subprocess.run(
        [*emulator, program, "a", "b c"], capture_output=True, text=True, check=False
    )
    script.unlink()
    assert (result.returncode, result.stderr) == (0, "")
    told, blocked = result.stdout.split("\n", 1)
    assert told == f"-{program} ['a', 'b c']"
    assert int(blocked.split()[1], 16) & 2


def test_wheel_for_another_machine(sources: Path) -> None:
    arguments = cross_file("aarch64")
    output = run(PYTHON, "-c", BUILD_WHEEL, *arguments, directory=sources)
    name = output.splitlines()[-1]
    assert name.endswith("-py3-none-linux_aarch64.whl")
    with ZipFile(sources / name) as wheel:
        names = set(wheel.namelist())
        native = {
            os.path.basename(path): wheel.read(path)
            for path in names
            if path.startswith("runrootless/native/")
        }
        record = next(path for path in names if path.endswith(".dist-info/RECORD"))
        rows = list(csv.reader(wheel.read(record).decode().splitlines()))
        for path, algorithm_and_digest, size in rows:
            if path != record:
                data = wheel.read(path)
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
                assert algorithm_and_digest == f"sha256={digest.rstrip('=')}"
                assert int(size) == len(data)
        assert sorted(path for path, _, _ in rows) == sorted(wheel.namelist())
        scripts = sorted(path for path in names if ".data/scripts/" in path)
        command, script = scripts
        assert command.endswith(".data/scripts/runrootless")
        assert script == f"{command}-python"
        for path in scripts:
            assert wheel.getinfo(path).external_attr >> 16 & 0o111
        assert elf.parse(wheel.read(command)).machine == "aarch64"
        # Installers put the path of the interpreter there.
        assert wheel.read(script).startswith(b"#!python\n")
    assert elf.parse(native["launcher"]).machine == "aarch64"
    assert native["notify.bpf"] == build("aarch64", RETURN_NOTIFY)
    assert native["thorough.bpf"] == build("aarch64", RETURN_NOTIFY, thorough=True)
    assert native["fast.bpf"] == build("aarch64", RETURN_NOTIFY, number=PLACEHOLDER)
    assert elf.parse(native["fast.so"]).machine == "aarch64"
    assert native["zero.bpf"] == filter_program("aarch64")
    modules = (sources / "src").rglob("*.py")
    assert {str(path.relative_to(sources / "src")) for path in modules} <= names


def test_without_a_compiler(sources: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sed").symlink_to("/usr/bin/sed")
    command = [PYTHON, "/usr/bin/meson", "setup", str(sources), str(tmp_path / "build")]
    environment = {**ENVIRONMENT, "PATH": str(programs)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    (line,) = [line for line in result.stdout.splitlines() if "ERROR" in line]
    assert "a C compiler is needed" in line
