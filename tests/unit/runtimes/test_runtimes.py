"""Which OCI runtime does the work."""

import json
import os
from pathlib import Path

import pytest

from runrootless import runtimes
from runrootless.errors import Error


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of two directories, and nothing else where programs are."""
    monkeypatch.delenv("RUNROOTLESS_RUNTIME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/one:{tmp_path}/two")
    monkeypatch.setattr(runtimes, "_MORE_DIRECTORIES", (f"{tmp_path}/sbin",))
    for name in ("one", "two", "sbin"):
        (tmp_path / name).mkdir()
    return tmp_path


def install(path: Path) -> str:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_runc_before_crun(programs: Path) -> None:
    install(programs / "one/crun")
    runc = install(programs / "two/runc")
    assert runtimes.choose("").path == runc


def test_crun_without_runc(programs: Path) -> None:
    install(programs / "two/crun")
    assert runtimes.choose("").path == f"{programs}/two/crun"


def test_beside_the_path(programs: Path) -> None:
    runc = install(programs / "sbin/runc")
    assert runtimes.choose("").path == runc
    assert runtimes.choose("runc").path == runc


def test_of_the_callers_choice(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(programs / "one/runc")
    crun, other = install(programs / "one/crun"), install(programs / "other")
    monkeypatch.setenv("RUNROOTLESS_RUNTIME", "crun")
    assert runtimes.choose("").path == crun
    assert runtimes.choose(other).path == other
    assert runtimes.choose(other).name == "other"


def test_a_path_may_be_relative(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(programs / "one/runc")
    monkeypatch.chdir(programs)
    assert runtimes.choose("./one/runc").path == f"{programs}/one/runc"


def test_none(programs: Path) -> None:
    with pytest.raises(Error, match="no OCI runtime found: install runc or crun"):
        runtimes.choose("")


def test_not_there(programs: Path) -> None:
    with pytest.raises(Error, match="the runtime youki is not in PATH: install it"):
        runtimes.choose("youki")
    with pytest.raises(Error, match="the runtime /none/runc is not an executable file"):
        runtimes.choose("/none/runc")


def test_only_programs(programs: Path) -> None:
    (programs / "one/runc").mkdir()
    (programs / "two/runc").write_text("")
    with pytest.raises(Error, match="no OCI runtime"):
        runtimes.choose("")


def test_not_itself(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may have put it in the runtime's place."""
    itself = install(programs / "runrootless")
    monkeypatch.setattr("sys.argv", [itself])
    (programs / "one/runc").symlink_to(itself)
    runc = install(programs / "two/runc")
    assert runtimes.choose("").path == runc


def test_not_where_the_caller_happens_to_be(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(programs / "runc")
    monkeypatch.chdir(programs)
    for path in ("", ".", ":", "one:."):
        monkeypatch.setenv("PATH", path)
        with pytest.raises(Error, match="no OCI runtime"):
            runtimes.choose("")


@pytest.mark.parametrize(
    ("file", "content", "pid"),
    [
        ("state.json", {"id": "x", "init_process_pid": 5}, 5),
        ("status", {"pid": 6, "id": "x"}, 6),
        ("status", {"pid": 0}, None),
        ("state.json", {"pid": 5}, None),
        ("state.json", [], None),
        ("other", {"pid": 5}, None),
    ],
)
def test_the_first_process(tmp_path: Path, file: str, content: object, pid: int | None) -> None:
    (tmp_path / file).write_text(json.dumps(content))
    assert runtimes.Runtime("/x/runc").init_pid(str(tmp_path)) == pid


def test_the_first_process_of_a_broken_state(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    assert runtimes.Runtime("/x/runc").init_pid(str(tmp_path)) is None
    assert os.listdir(tmp_path) == ["state.json"]
