"""Flags as runc takes them: runc itself is asked."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from runrootless.command_line.runc import (
    CREATE,
    EXEC,
    GLOBAL,
    RUN,
    Parsed,
    flags_first,
    number,
    parse,
)

RUNC = shutil.which("runc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")

RUN_LINES = [
    "--bundle {b} x",
    "-bundle {b} x",
    "--bundle={b} x",
    "-b {b} x",
    "-b={b} x",
    "--b {b} x",
    "-b {b} -b {c} x",
    "-b {c} --bundle {b} x",
    "--bundle {b} -- x",
    "-- x",
    "-- x -b {b}",
    "-- -b",
    "x",
    "x --bundle {b}",
    "x -b={b}",
    "x -b {b} -- ",
    "x y",
    "x y -b {b}",
    "-b {b}",
    "-b",
    "--bundle= x",
    "--bundle",
    "--keep x -b {b}",
    "--keep=false x -b {b}",
    "--keep=false --keep -b {b} x",
    "-d -b {b} x",
    "-d=t -b {b} x",
    "-d=TRUE -b {b} x",
    "-d=yes -b {b} x",
    "-d= -b {b} x",
    "--detach --keep --no-pivot -b {b} x",
    "--no-pivot -b {b} --no-new-keyring --no-subreaper x",
    "--pid-file p --console-socket s -b {b} x",
    "--pid-file -b {b} x",
    "--preserve-fds 3 -b {b} x",
    "--preserve-fds=0x3 -b {b} x",
    "--preserve-fds 010 -b {b} x",
    "--preserve-fds 08 -b {b} x",
    "--preserve-fds 1_0 -b {b} x",
    "--preserve-fds +3 -b {b} x",
    "--preserve-fds -3 -b {b} x",
    "--preserve-fds= -b {b} x",
    "--preserve-fds x -b {b} x",
    "--foo -b {b} x",
    "-b {b} x --foo",
    "---b {b} x",
    "-=x -b {b} x",
    "--=x -b {b} x",
    "- -b {b}",
    "-b {b} -",
    "-db {b} x",
    "-b{b} x",
    "",
]


@pytest.mark.skipif(RUNC is None, reason="no runc")
@pytest.mark.parametrize("line", RUN_LINES)
@pytest.mark.parametrize("command", ["run", "create"])
def test_run_and_create(command: str, line: str, tmp_path: Path) -> None:
    """The bundle that runc looks for is the one that is transformed."""
    assert RUNC is not None
    bundles = {"b": str(tmp_path / "b"), "c": str(tmp_path / "c"), "": str(tmp_path)}
    words = line.format(**bundles).split()
    flags = RUN if command == "run" else CREATE
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [RUNC, "--root", str(tmp_path / "state"), command, *words],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    # No bundle exists, so how far runc came is in what it says.
    if "chdir" in done.stderr:
        expected = done.stderr.partition("chdir ")[2].partition(":")[0]
    elif "config.json" in done.stderr:
        expected = str(tmp_path)
    else:
        expected = "refused"
    parsed = parse(flags, flags_first(flags, words))
    if parsed.error or len(parsed.arguments) != 1:
        found = "refused"
    else:
        found = parsed.get("bundle") or str(tmp_path)
    assert found == expected, done.stderr


@pytest.mark.skipif(RUNC is None, reason="no runc")
@pytest.mark.parametrize(
    "line",
    [
        "--debug",
        "-debug",
        "--debug=false",
        "--debug=1",
        "--debug=maybe",
        "--log {b}",
        "--log={b}",
        "-log {b} --log-format json",
        "--systemd-cgroup",
        "--criu x",
        "--rootless true",
        "--rootless=auto",
        "--",
        "--nope",
        "---debug",
    ],
)
def test_global_flags(line: str, tmp_path: Path) -> None:
    assert RUNC is not None
    words = [*line.format(b=tmp_path / "log").split(), "state", "none"]
    done = subprocess.run(
        [RUNC, "--root", str(tmp_path / "state"), *words],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    accepted = "does not exist" in done.stderr
    parsed = parse(GLOBAL, words)
    assert (not parsed.error and parsed.arguments == ["state", "none"]) == accepted, done.stderr


def exec_line(*words: str) -> Parsed:
    parsed = parse(EXEC, words)
    assert not parsed.error
    return parsed


class TestExec:
    def test_flags_end_at_the_container(self) -> None:
        parsed = exec_line("-u", "5", "x", "-e", "A=b", "--", "-t")
        assert parsed.flags == [("user", "5")]
        assert parsed.arguments == ["x", "-e", "A=b", "--", "-t"]

    def test_lists(self) -> None:
        parsed = exec_line("-e", "A=b", "-e=C=d", "-e", "", "-g", "5", "-g=0x6", "-cap=X", "x")
        assert parsed.get_all("env") == ["A=b", "C=d", ""]
        assert parsed.get_all("additional-gids") == ["5", "0x6"]
        assert parsed.get_all("cap") == ["X"]
        assert parsed.arguments == ["x"]

    def test_two_forms_of_one_flag(self) -> None:
        assert parse(EXEC, ["-e", "A=b", "--env", "C=d", "x"]).error

    @pytest.mark.parametrize("words", [["-g", "x", "c"], ["--preserve-fds=x", "c"], ["-u"]])
    def test_errors(self, words: list[str]) -> None:
        assert parse(EXEC, words).error

    def test_defaults(self) -> None:
        parsed = exec_line("x")
        assert parsed.get("user") == ""
        assert parsed.get("preserve-fds", "0") == "0"
        assert parsed.get_all("env") == []
        assert not parsed.is_on("tty")


def test_one_spelling_for_all_runtimes() -> None:
    """crun knows two dashes only, and no value for a switch."""
    words = ["-b", "/b", "-d=t", "--keep=false", "-preserve-fds", "3", "-no-pivot", "x"]
    parsed = parse(RUN, words)
    assert parsed.without("bundle") == ["--detach", "--preserve-fds=3", "--no-pivot"]
    assert parsed.without() == ["--bundle=/b", "--detach", "--preserve-fds=3", "--no-pivot"]


def test_what_was_read_before_a_mistake() -> None:
    parsed = parse(GLOBAL, ["--debug", "--nope", "--log", "x"])
    assert parsed.error
    assert parsed.flags == [("debug", "true")]
    assert parsed.arguments == ["--nope", "--log", "x"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("010", 8),
        ("0x1f", 31),
        ("0b11", 3),
        ("0o17", 15),
        ("0", 0),
        ("", None),
        ("x", None),
        ("--5", None),
        ("08", None),
        ("1.0", None),
    ],
)
def test_numbers(text: str, value: int | None) -> None:
    assert number(text) == value
