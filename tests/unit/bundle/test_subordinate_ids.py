"""The subordinate IDs of a user, in files and from the name service."""

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from runrootless.bundle import subordinate_ids
from runrootless.bundle.subordinate_ids import find

UID = os.getuid()
NAME = pwd.getpwuid(UID).pw_name

Write = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Write:
    """Write another machine's files, and its programs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    files = [str(tmp_path / name) for name in ("subuid", "subgid")]
    monkeypatch.setattr(subordinate_ids, "_FILES", files)
    monkeypatch.setattr(subordinate_ids, "_NAME_SERVICES", str(tmp_path / "nsswitch.conf"))

    def write(subuid: str = "", subgid: str = "", nsswitch: str = "", **programs: str) -> None:
        for name, text in zip(("subuid", "subgid"), (subuid, subgid), strict=True):
            (tmp_path / name).write_text(text)
        (tmp_path / "nsswitch.conf").write_text(nsswitch)
        for name, script in {"newuidmap": "", "newgidmap": "", **programs}.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)

    return write


def test_all_ranges_of_the_user(machine: Write) -> None:
    machine(
        subuid=f"other:1:5\n{NAME}:100000:65536\n\n# text\n{UID}:300000:10\n{NAME}:x:1\n",
        subgid=f"{NAME}:200000:65536\n{NAME}:7:0\n",
    )
    assert find(UID) == ([(100000, 65536), (300000, 10)], [(200000, 65536)])


def test_one_kind_is_not_enough(machine: Write) -> None:
    machine(subuid=f"{NAME}:100000:65536\n")
    assert find(UID) == ([], [])


def test_nor_are_files_that_are_missing(machine: Write, tmp_path: Path) -> None:
    machine()
    (tmp_path / "subuid").unlink()
    assert find(UID) == ([], [])


@pytest.mark.parametrize("tool", ["newuidmap", "newgidmap"])
def test_nobody_maps_them_without_the_tools(machine: Write, tmp_path: Path, tool: str) -> None:
    machine(subuid=f"{NAME}:100000:65536\n", subgid=f"{NAME}:100000:65536\n")
    (tmp_path / tool).unlink()
    assert find(UID) == ([], [])


SCRIPT = f"""
case "$*" in
    "{NAME}") echo "0: {NAME} 500000 100"; echo "1: {NAME} 600000 5" ;;
    "-g {NAME}") echo "0: {NAME} 700000 100" ;;
    *) exit 1 ;;
esac
"""


def test_the_name_service_is_asked_where_it_has_them(machine: Write) -> None:
    machine(nsswitch="passwd: files\nsubid: sss\n", getsubids=SCRIPT)
    assert find(UID) == ([(500000, 100), (600000, 5)], [(700000, 100)])


def test_and_nowhere_else(machine: Write) -> None:
    machine(nsswitch="passwd: files\n", getsubids=SCRIPT)
    assert find(UID) == ([], [])


def test_a_user_without_a_name(machine: Write) -> None:
    machine(subuid="4000000000:5:6\n", subgid="4000000000:7:8\n")
    assert find(4000000000) == ([(5, 6)], [(7, 8)])
