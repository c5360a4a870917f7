"""Flags as crun takes them: crun itself is asked."""

import shutil
import subprocess

import pytest

from runrootless.command_line.gnu import parse
from runrootless.command_line.runc import EXEC, RUN, Flags

CRUN = shutil.which("crun", path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")


@pytest.mark.parametrize(
    ("line", "flags", "arguments"),
    [
        ("-bDIR x", [("bundle", "DIR")], ["x"]),
        ("-b DIR x", [("bundle", "DIR")], ["x"]),
        ("--bundle DIR x", [("bundle", "DIR")], ["x"]),
        ("--bundle=DIR x", [("bundle", "DIR")], ["x"]),
        ("--bun=DIR x", [("bundle", "DIR")], ["x"]),
        ("-dbDIR x", [("detach", "true"), ("bundle", "DIR")], ["x"]),
        ("-db DIR x", [("detach", "true"), ("bundle", "DIR")], ["x"]),
        ("-fFILE -bDIR -- x", [("config", "FILE"), ("bundle", "DIR")], ["x"]),
        ("--config FILE x", [("config", "FILE")], ["x"]),
        ("-b=DIR x", [("bundle", "=DIR")], ["x"]),
        ("x -bDIR", [], ["x", "-bDIR"]),
        ("- x", [], ["-", "x"]),
        ("--bundle= x", [("bundle", "")], ["x"]),
    ],
)
def test_spellings(line: str, flags: list[tuple[str, str]], arguments: list[str]) -> None:
    parsed = parse(RUN, line.split())
    assert (parsed.error, parsed.flags, parsed.arguments) == (False, flags, arguments)


@pytest.mark.parametrize(
    ("line", "of"),
    [
        ("-x x", RUN),
        ("-bDIR --nosuch x", RUN),
        ("--no x", RUN),
        ("--detach=yes x", RUN),
        ("-b", RUN),
        ("--bundle", RUN),
        ("-dq x", RUN),
        ("-f x", EXEC),
    ],
)
@pytest.mark.skipif(CRUN is None, reason="crun is not installed")
def test_mistakes(line: str, of: Flags) -> None:
    assert parse(of, line.split()).error
    assert CRUN is not None
    command = [CRUN, "--root=/nosuch", "run" if of is RUN else "exec", *line.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    # The exit code that argp has for wrong usage.
    assert done.returncode == 64


def test_a_cluster_of_exec() -> None:
    parsed = parse(EXEC, ["-dtu33:33", "-eA=b", "x", "id", "-u"])
    assert parsed.flags == [
        ("detach", "true"),
        ("tty", "true"),
        ("user", "33:33"),
        ("env", "A=b"),
    ]
    assert parsed.arguments == ["x", "id", "-u"]
