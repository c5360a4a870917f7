"""Which executions of programs the loop in C lets through, by the calls of a process of its own.

The files are no programs that this machine has a loader for, so the process goes on.
"""

import errno
import os
from pathlib import Path

import pytest

from runrootless.emulation.callers.credential_table import INFINITY
from runrootless.linux.limits import RLIMIT_RTTIME, set_soft_limit
from support.callers import Caller, Outcome

ROOTS_NUMBER = 5
USERS_NUMBER = 1 << 62 | 5 << 31 | 6


@pytest.fixture
def program(caller: Caller, tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"\x7fof no machine")
    path.chmod(0o755)
    know(caller, path)
    return path


def execute(caller: Caller, path: Path | str) -> Outcome:
    return caller.call("execve", caller.text(os.fsencode(path)), 0, 0)


def assert_passed(caller: Caller, path: Path | str, error: int = errno.ENOEXEC) -> None:
    outcome = execute(caller, path)
    assert (outcome.is_left, outcome.value, outcome.error) == (False, -1, error)


def assert_left(caller: Caller, path: Path | str, error: int = errno.ENOEXEC) -> None:
    outcome = execute(caller, path)
    assert (outcome.is_left, outcome.value, outcome.error) == (True, -1, error)


def know(caller: Caller, path: Path) -> None:
    status = path.stat()
    caller.programs.know(status.st_dev, status.st_ino, status.st_ctime_ns)


def preload(caller: Caller, path: Path) -> None:
    status = path.stat()
    caller.programs.preload(os.fsencode(path), (status.st_dev, status.st_ino))


def test_of_root(caller: Caller, program: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("program")
    (tmp_path / "closed").touch(0o600)
    know(caller, tmp_path / "closed")
    assert_passed(caller, program)
    assert_passed(caller, tmp_path / "link")
    assert_passed(caller, tmp_path / "closed", errno.EACCES)
    assert_passed(caller, tmp_path / "missing", errno.ENOENT)
    assert_passed(caller, program / "missing", errno.ENOTDIR)


@pytest.mark.parametrize("bits", [0o4755, 0o2755, 0o6755, 0o4644, 0o2745])
def test_set_id_bits(caller: Caller, program: Path, bits: int) -> None:
    program.chmod(bits)
    know(caller, program)
    assert_left(caller, program, errno.ENOEXEC if bits & 0o111 else errno.EACCES)


def test_what_is_no_plain_file(caller: Caller, program: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert_left(caller, tmp_path, errno.EACCES)
    assert_left(caller, "/dev/null", errno.EACCES)
    assert_left(caller, tmp_path / "loop", errno.ELOOP)
    assert_left(caller, "", errno.ENOENT)
    assert_left(caller, f"/proc/self/cwd/{'../' * 64}{program}")
    assert_left(caller, "./" * 200 + str(program), errno.ENOENT)


@pytest.mark.parametrize("number", [ROOTS_NUMBER, USERS_NUMBER])
def test_others_than_root(caller: Caller, program: Path, number: int) -> None:
    set_soft_limit(caller.pid, RLIMIT_RTTIME, number, INFINITY)
    assert_left(caller, program)
    set_soft_limit(caller.pid, RLIMIT_RTTIME, INFINITY, INFINITY)
    assert_passed(caller, program)


def test_while_somebody_takes_note(caller: Caller, program: Path) -> None:
    caller.readers.add(1)
    assert_left(caller, program)
    caller.readers.discard(1)
    assert_passed(caller, program)
    caller.set_views_vary(True)
    assert_left(caller, program)
    caller.set_views_vary(False)
    assert_passed(caller, program)
    caller.programs.observe()
    assert_left(caller, program)


def test_with_an_object_to_be_preloaded(caller: Caller, program: Path, tmp_path: Path) -> None:
    """Only where the program can load it and finds it under its name."""
    there = Path("/dev/shm") / f"runrootless-{os.getpid()}"
    there.touch()
    try:
        preload(caller, there)
        assert_passed(caller, program)
        other = there.with_suffix(".other")
        other.touch()
        other.replace(there)
        assert_left(caller, program)
        preload(caller, there)
        assert_passed(caller, program)
        there.unlink()
        assert_left(caller, program)
    finally:
        there.unlink(missing_ok=True)


def test_what_is_not_known(caller: Caller, program: Path, tmp_path: Path) -> None:
    """It may be a script, or changed."""
    other = tmp_path / "other"
    other.write_bytes(program.read_bytes())
    other.chmod(0o755)
    assert_left(caller, other)
    assert_passed(caller, program)
    before = program.stat().st_ctime_ns
    while program.stat().st_ctime_ns == before:
        program.chmod(0o755)
    assert_left(caller, program)
    for number in range(5000):
        caller.programs.know(1, number, before)
    assert_left(caller, program)
    know(caller, program)
    assert_passed(caller, program)
