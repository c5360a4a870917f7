"""What a runtime says that it can do, and what is remembered of it."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runrootless.bundle.identity import Identity
from runrootless.engines import notify
from runrootless.runtimes import Runtime
from runrootless.runtimes.features import ask, seccomp_flags

WAIT = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
SPEC_ALLOW = "SECCOMP_FILTER_FLAG_SPEC_ALLOW"
LOG = "SECCOMP_FILTER_FLAG_LOG"


def features(**seccomp: object) -> dict[str, Any]:
    """As the OCI runtime spec's features-linux.md has them."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "linux": {"cgroup": {"v1": True}, "seccomp": {"enabled": True, **seccomp}},
    }


@pytest.mark.parametrize(
    ("said", "flags"),
    [
        (features(knownFlags=[LOG], supportedFlags=[LOG]), [LOG]),
        (features(knownFlags=[LOG, WAIT], supportedFlags=[SPEC_ALLOW, WAIT]), [SPEC_ALLOW, WAIT]),
        # To be known is not enough.
        (features(knownFlags=[WAIT]), []),
        (features(knownFlags=[WAIT], supportedFlags=[]), []),
        (features(supportedFlags=None), []),
        (features(supportedFlags=WAIT), []),
        (features(supportedFlags=[1, None, [WAIT], "two words", "new\nline", LOG]), [LOG]),
        ({"linux": None}, []),
        ({"linux": {"seccomp": []}}, []),
        ({}, []),
        (None, []),
    ],
)
def test_supported_flags(said: dict[str, Any] | None, flags: list[str]) -> None:
    assert seccomp_flags(said) == flags


@pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed")
def test_what_runc_says() -> None:
    path = shutil.which("runc")
    assert path is not None
    said = ask(path)
    assert said is not None
    assert said["linux"]["seccomp"]["enabled"]
    # Those of runc 1.1 are none: it does not tell.
    assert set(seccomp_flags(said)) <= set(said["linux"]["seccomp"].get("knownFlags") or ())


@pytest.mark.parametrize("script", ["exit 1", "echo", "echo '[]'", "echo '{'", "printf '\\377'"])
def test_a_runtime_that_does_not_tell(script: str, tmp_path: Path) -> None:
    program = tmp_path / "runtime"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert ask(str(program)) is None
    assert ask(f"{tmp_path}/nosuch") is None


class Program:
    """A runtime that supports one flag, and counts how often it is asked."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "runtime"
        self._log = directory / "asked"
        self.install(features(supportedFlags=[WAIT]))

    def install(self, said: dict[str, Any]) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(f"#!/bin/sh\necho >>{self._log}\necho '{json.dumps(said)}'\n")
        new.chmod(0o755)
        new.rename(self.path)

    def flags(self) -> list[str]:
        return Runtime(str(self.path)).seccomp_flags()

    def asked(self) -> int:
        return len(self._log.read_text()) if self._log.exists() else 0


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path}/cache")
    return Program(tmp_path)


def memory(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "cache" / "runrootless").iterdir()
    return file


def test_it_is_asked_once(program: Program, tmp_path: Path) -> None:
    assert [program.flags() for _ in range(3)] == [[WAIT]] * 3
    assert program.asked() == 1
    file = memory(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_runtime_that_does_not_tell_is_asked_once(program: Program) -> None:
    program.install({})
    assert [program.flags() for _ in range(3)] == [[]] * 3
    assert program.asked() == 1


def test_another_runtime_at_the_same_path_is_asked(program: Program) -> None:
    program.flags()
    program.install(features(supportedFlags=[LOG]))
    assert program.flags() == [LOG]
    assert program.asked() == 2


def change(pattern: str, replacement: str) -> Callable[[Path], None]:
    def apply(file: Path) -> None:
        text = file.read_text()
        assert pattern in text
        file.write_text(text.replace(pattern, replacement))

    return apply


def replace_by_link(file: Path) -> None:
    target = file.with_name("target")
    file.rename(target)
    file.symlink_to(target)


def replace_by_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def age(days: float) -> Callable[[Path], None]:
    return lambda file: os.utime(file, (time.time() - days * 86400,) * 2)


@pytest.mark.parametrize(
    "spoil",
    [
        change(os.uname().release, "5.10.0"),
        change(WAIT, f"{LOG}\nmore"),
        change(f"\n{WAIT}\n", ""),
        change(f"{WAIT}\n", WAIT[:-1]),
        lambda file: file.write_text(""),
        lambda file: file.write_bytes(b"\xff" * 10000),
        lambda file: file.chmod(0o622),
        replace_by_link,
        replace_by_fifo,
        age(1.1),
        age(-0.1),
    ],
)
def test_a_memory_that_is_not_to_be_believed(
    spoil: Callable[[Path], object], program: Program, tmp_path: Path
) -> None:
    program.flags()
    spoil(memory(tmp_path))
    assert program.flags() == [WAIT]
    assert program.asked() == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_somebody_elses_memory(program: Program, tmp_path: Path) -> None:
    program.flags()
    os.chown(memory(tmp_path), 12345, -1)
    assert program.flags() == [WAIT]
    assert program.asked() == 2
    assert memory(tmp_path).stat().st_uid == 0


def test_a_directory_in_its_place(program: Program, tmp_path: Path) -> None:
    program.flags()
    file = memory(tmp_path)
    file.unlink()
    file.mkdir()
    assert program.flags() == [WAIT]
    assert memory(tmp_path) == file


@pytest.mark.parametrize("cache", ["file", "shared", "link", "none"])
def test_without_a_place_to_remember_it_is_not_asked(
    cache: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cache == "file":
        (tmp_path / "cache").touch()
    elif cache == "shared":
        (tmp_path / "cache" / "runrootless").mkdir(parents=True)
        (tmp_path / "cache" / "runrootless").chmod(0o777)
    elif cache == "link":
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "runrootless").symlink_to(tmp_path)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        monkeypatch.delenv("HOME", raising=False)
    assert program.flags() == []
    assert program.asked() == 0


def test_below_the_home_directory(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert program.flags() == [WAIT]
    assert len(list((tmp_path / ".cache" / "runrootless").iterdir())) == 1


@pytest.mark.parametrize(
    ("supported", "given", "flags"),
    [
        ([WAIT], None, [WAIT]),
        # What it would have taken without any.
        ([SPEC_ALLOW, WAIT], None, [SPEC_ALLOW, WAIT]),
        ([SPEC_ALLOW, WAIT], [], [WAIT]),
        ([SPEC_ALLOW, WAIT], [LOG], [LOG, WAIT]),
        ([WAIT], [WAIT, LOG], [WAIT, LOG]),
        ([SPEC_ALLOW, LOG], None, None),
        ([], [LOG], [LOG]),
    ],
)
def test_the_flags_of_a_profile(
    supported: list[str],
    given: list[str] | None,
    flags: list[str] | None,
    program: Program,
    tmp_path: Path,
) -> None:
    program.install(features(supportedFlags=supported))
    profile: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW"}
    if given is not None:
        profile["flags"] = given
    spec: dict[str, Any] = {"linux": {"seccomp": profile}, "process": {}}
    notify.apply(spec, str(tmp_path), Identity(0, 0), Runtime(str(program.path)))
    assert spec["linux"]["seccomp"].get("flags") == flags
