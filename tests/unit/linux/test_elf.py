"""What programs need, against what readelf(1) says, and files that are none."""

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.linux import elf

MACHINE = os.uname().machine
PROGRAMS = [shutil.which(name) for name in ("ls", "gcc", "tar", "readelf", "bash")]


def needed(path: Path | str) -> list[bytes]:
    file = os.open(path, os.O_RDONLY)
    try:
        return elf.needed(file, MACHINE)
    finally:
        os.close(file)


@pytest.mark.skipif(not shutil.which("readelf"), reason="binutils has readelf")
@pytest.mark.parametrize("path", [path for path in PROGRAMS if path])
def test_as_readelf_says(path: str) -> None:
    output = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True)
    expected = re.findall(r"\(NEEDED\).*\[(.*)\]", output.stdout)
    assert needed(path) == [name.encode() for name in expected]
    assert expected


def test_a_program_without_libraries() -> None:
    launcher = Path(elf.__file__).parents[1] / "native" / "launcher"
    assert needed(launcher) == []


def test_programs_of_others(tmp_path: Path) -> None:
    data = bytearray(Path(PROGRAMS[0] or "/bin/ls").read_bytes())
    path = tmp_path / "program"
    for index, value in ((0, 0), (4, 1), (18, 3)):
        path.write_bytes(data[:index] + bytes([value]) + data[index + 1 :])
        with pytest.raises(ValueError):
            needed(path)


def test_a_name_that_is_nowhere(tmp_path: Path) -> None:
    """What a dynamic section says may be any number."""
    program = Path(PROGRAMS[0] or "/bin/ls").read_bytes()
    segments = struct.unpack_from("<Q", program, 32)[0]
    (count,) = struct.unpack_from("<H", program, 56)
    for number in range(count):
        kind, _, offset = struct.unpack_from("<IIQ", program, segments + 56 * number)
        if kind == 2:
            break
    changed = bytearray(program)
    struct.pack_into("<qQ", changed, offset, 1, (1 << 64) - 1)
    path = tmp_path / "program"
    path.write_bytes(changed)
    assert b"" in needed(path)


@given(
    edits=st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 255)), max_size=8),
    size=st.one_of(st.none(), st.integers(0, 2048)),
)
def test_damaged_programs(
    edits: list[tuple[int, int]], size: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(Path(PROGRAMS[0] or "/bin/ls").read_bytes()[:size])
    for index, value in edits:
        if index < len(data):
            data[index] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data)
    try:
        found = needed(path)
    except ValueError:
        return
    assert all(len(name) <= 256 for name in found)
