"""What has become of a process that was about to execute a program, by processes that do."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from runrootless.emulation.apart import Apart
from runrootless.emulation.callers.credential_table import (
    INFINITY,
    CredentialTable,
    Outcome,
    is_pending,
)
from runrootless.emulation.callers.credentials import Credentials, initial
from runrootless.emulation.callers.executions import Executions
from runrootless.emulation.callers.identity import Identity
from runrootless.emulation.callers.makers import Makers
from runrootless.emulation.programs import Programs
from runrootless.linux.limits import RLIMIT_RTTIME, get_soft_limit, set_soft_limit
from runrootless.linux.memory_image import executable, layout

BEFORE, NEW, ANY = initial(33, 33), Credentials((33, 0, 0, 0), (33, 33, 33, 33)), initial(34, 34)
CAT = os.path.realpath("/bin/cat")
# Says that it is there; then makes a child at each "f", and executes cat at "x".
PROGRAM = f"""
import os, sys
os.write(1, b"0\\n")
while command := os.read(0, 1):
    if command == b"f":
        pid = os.fork()
        if not pid:
            os.read(int(sys.argv[1]), 1)
            os._exit(0)
        os.write(1, b"%d\\n" % pid)
    elif command == b"e":
        try:
            os.execv({CAT!r}, ["cat", "x" * 200000])
        except OSError:
            os.write(1, b"0\\n")
    else:
        os.execv({CAT!r}, ["cat"])
"""


class Caller:
    """A process that does as it is told."""

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", PROGRAM, str(reading)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[reading],
        )
        os.close(reading)
        self.pid = self._process.pid
        self._answer()

    def tell(self, command: bytes) -> int:
        assert self._process.stdin
        self._process.stdin.write(command)
        self._process.stdin.flush()
        return self._answer()

    def execute(self) -> None:
        """Execute cat, which then repeats what it reads."""
        assert self._process.stdin
        self._process.stdin.write(b"x")
        self.tell(b"1\n")

    def _answer(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())

    def end(self) -> None:
        os.close(self._writing)
        self._process.communicate()


@pytest.fixture
def caller(in_proc: None) -> Iterator[Caller]:
    caller = Caller()
    yield caller
    caller.end()


@pytest.fixture
def table() -> Iterator[int]:
    fd = os.memfd_create("credentials")
    yield fd
    os.close(fd)


def file_of(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def make_pending(table: int, pid: int, file: tuple[int, int], sure: bool = False) -> int:
    ours = CredentialTable(table)
    outcome = Outcome(BEFORE, NEW, ANY, (False, True), file)
    check = Executions(ours).check(b"%d" % pid)
    state = (1, 2, True)
    number = ours.encode_pending(outcome, state, False, sure, check, 0)
    set_soft_limit(pid, RLIMIT_RTTIME, number, INFINITY)
    return number


def test_by_what_memory_is_known(caller: Caller) -> None:
    name = b"%d" % caller.pid
    assert executable(name) == file_of(os.path.realpath(sys.executable))
    before = layout(name)
    child = caller.tell(b"f")
    assert layout(b"%d" % child) == layout(name) == before
    caller.execute()
    assert executable(name) == file_of(CAT)
    assert layout(name) not in (before, None)
    assert executable(b"%d" % child) == file_of(os.path.realpath(sys.executable))


@pytest.mark.parametrize("sure", [False, True])
@pytest.mark.parametrize(
    ("file", "becomes", "dumpable"), [("cat", NEW, False), ("sh", ANY, True), ("any", NEW, False)]
)
def test_a_program_is_executed(
    caller: Caller, table: int, file: str, becomes: Credentials, dumpable: bool, sure: bool
) -> None:
    wanted = {"cat": file_of(CAT), "sh": file_of("/bin/sh"), "any": (0, 0)}[file]
    number = make_pending(table, caller.pid, wanted, sure)
    # Another agent, which was not there when it began.
    other = Identity(CredentialTable(table), Makers(Apart()), Programs())
    caller.tell(b"e")
    child = caller.tell(b"f")
    for pid in (caller.pid, child):
        assert get_soft_limit(pid, RLIMIT_RTTIME) == number
        assert other.of(pid) == BEFORE
        assert other.state(pid) == (1, 2, True)
    caller.execute()
    assert other.of_limit(number, b"%d" % caller.pid) == (becomes, (1, 2, dumpable))
    assert other.of(caller.pid) == becomes
    assert other.state(caller.pid) == (1, 2, dumpable)
    assert not is_pending(get_soft_limit(caller.pid, RLIMIT_RTTIME))
    # Its child has the old program, and the old number.
    assert other.of(child) == BEFORE
    other.settle(child)
    assert not is_pending(get_soft_limit(child, RLIMIT_RTTIME))
    assert (other.of(child), other.state(child)) == (BEFORE, (1, 2, True))


def test_what_is_settled_before_is_not_changed_after(caller: Caller, table: int) -> None:
    make_pending(table, caller.pid, file_of(CAT))
    identity = Identity(CredentialTable(table), Makers(Apart()), Programs())
    identity.set_limits(caller.pid, 3, 4, BEFORE)
    caller.execute()
    assert identity.of(caller.pid) == BEFORE
    assert identity.state(caller.pid) == (3, 4, True)


def test_a_process_that_has_ended_has_executed_nothing(caller: Caller, table: int) -> None:
    number = make_pending(table, caller.pid, (0, 0))
    pid = caller.pid
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert layout(b"%d" % pid) is None
    identity = Identity(CredentialTable(table), Makers(Apart()), Programs())
    assert identity.of_limit(number, b"%d" % pid) == (BEFORE, (1, 2, True))
    assert identity.of_limit(number, b"no such process") == (BEFORE, (1, 2, True))


def test_changes_by_several_threads(caller: Caller, table: int) -> None:
    """None of them is lost: each keeps what the others have changed."""
    identity = Identity(CredentialTable(table), Makers(Apart()), Programs())
    set_soft_limit(caller.pid, RLIMIT_RTTIME, INFINITY, INFINITY)
    lost = []

    def limits() -> None:
        for number in range(300):
            identity.set_limits(caller.pid, number, number, BEFORE)
            if identity.state(caller.pid)[:2] != (number, number):
                lost.append(number)

    def dumpable() -> None:
        for number in range(300):
            identity.set_dumpable(caller.pid, bool(number % 2))
            if identity.state(caller.pid)[2] != bool(number % 2):
                lost.append(number)

    threads = [threading.Thread(target=target) for target in (limits, dumpable)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not lost
    assert identity.state(caller.pid) == (299, 299, True)
