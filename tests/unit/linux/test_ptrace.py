"""What is waited for, and what is left to others."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from runrootless.linux import ptrace


@pytest.fixture
def traced() -> Iterator[int]:
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    ptrace.seize(pid, ptrace.KILL_WITH_TRACER)
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ChildProcessError, ProcessLookupError):
        pass


def test_a_stop_is_left_to_who_waits_for_it(traced: int) -> None:
    ptrace.interrupt(traced)
    deadline = time.monotonic() + 10
    while os.waitid(os.P_PID, traced, os.WSTOPPED | os.WNOWAIT | os.WNOHANG) is None:
        assert time.monotonic() < deadline
    ptrace.reap([traced])
    found = ptrace.wait_until(deadline)
    assert found is not None
    assert (found[0], found[1] >> 16) == (traced, ptrace.EVENT_STOP)


def test_an_end_is_waited_for(traced: int) -> None:
    os.kill(traced, signal.SIGKILL)
    os.waitid(os.P_PID, traced, os.WEXITED | os.WNOWAIT)
    ptrace.reap([traced])
    with pytest.raises(ChildProcessError):
        os.waitpid(traced, os.WNOHANG)


def test_who_runs_or_is_unknown_is_left_alone(traced: int) -> None:
    ptrace.reap([traced, os.getppid(), 2**22 + 1])
    assert os.waitpid(traced, os.WNOHANG) == (0, 0)
