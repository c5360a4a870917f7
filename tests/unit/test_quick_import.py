"""Modules come from their compiled files, as long as these are of their sources."""

import compileall
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import runrootless

BEGIN = "import sys; from runrootless import quick_import; quick_import.install()\n"
QUICK = "_Loader"
SHOW = """
loader = m.__spec__.loader
print(m.__name__, getattr(loader, "__name__", type(loader).__name__), m.__file__, m.NAME)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the package with two modules more, all compiled."""
    root = tmp_path / "runrootless"
    root.mkdir()
    package = os.path.dirname(runrootless.__file__)
    for name in ("__init__.py", "quick_import.py"):
        shutil.copy(os.path.join(package, name), root)
    (root / "single.py").write_text("NAME = 1\n")
    (root / "house").mkdir()
    (root / "house" / "__init__.py").write_text("NAME = 2\n")
    (root / "house" / "room.py").write_text("NAME = 3\n")
    assert compileall.compile_dir(root, quiet=1)
    return root


def run(root: Path, text: str, *options: str) -> list[str]:
    """Return the words that a Python program prints which imports from the copy."""
    env = {"PYTHONPATH": str(root.parent)}
    done = subprocess.run(
        [sys.executable, *options, "-c", BEGIN + text], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def show(root: Path, name: str, *options: str) -> list[str]:
    return run(root, f"import runrootless.{name} as m\n{SHOW}", *options)


@pytest.mark.parametrize(
    ("name", "file", "value"),
    [
        ("single", "single.py", "1"),
        ("house", "house/__init__.py", "2"),
        ("house.room", "house/room.py", "3"),
    ],
)
def test_module_and_package(root: Path, name: str, file: str, value: str) -> None:
    assert show(root, name) == [f"runrootless.{name}", QUICK, str(root / file), value]


def test_change_of_size(root: Path) -> None:
    """A source that is another one by now is what counts."""
    (root / "single.py").write_text("NAME = 11\n")
    assert show(root, "single", "-B")[1::2] == ["SourceFileLoader", "11"]


def test_change_of_time(root: Path) -> None:
    (root / "single.py").write_text("NAME = 4\n")
    os.utime(root / "single.py", (1, 1))
    assert show(root, "single", "-B")[1::2] == ["SourceFileLoader", "4"]
    # And is compiled by who finds that out.
    assert show(root, "single")[1::2] == ["SourceFileLoader", "4"]
    assert show(root, "single")[1::2] == [QUICK, "4"]


@pytest.mark.parametrize("keep", [0, 3, 15])
def test_broken_compiled_file(root: Path, keep: int) -> None:
    """It is the import system's to deal with."""
    (compiled,) = (root / "__pycache__").glob("single.*")
    compiled.write_bytes(compiled.read_bytes()[:keep])
    assert show(root, "single", "-B")[1::2] == ["SourceFileLoader", "1"]


def test_no_compiled_file(root: Path) -> None:
    shutil.rmtree(root / "house" / "__pycache__")
    assert show(root, "house.room", "-B")[3] == "3"
    assert show(root, "house", "-B")[3] == "2"


def test_optimized(root: Path) -> None:
    """Such code is in other files."""
    assert show(root, "single", "-O")[1] == "SourceFileLoader"


def test_missing_module(root: Path) -> None:
    text = "try: import runrootless.house.garden\nexcept ModuleNotFoundError as e: print(e.name)"
    assert run(root, text) == ["runrootless.house.garden"]


def test_others_are_left_alone(root: Path) -> None:
    assert run(root, "import json; print(json.__spec__.loader.__class__.__name__)")[0] != QUICK
