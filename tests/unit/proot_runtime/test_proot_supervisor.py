"""What becomes of a PRoot that is about to start when its supervisor ends."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runrootless.linux.process import set_parent_death_signal
from runrootless.proot_runtime import supervisor


def kill_the_parent() -> None:
    """Kill it, and return when all has happened that the kernel does at its end."""
    parent = os.getppid()
    os.kill(parent, signal.SIGKILL)
    while os.getppid() == parent:
        time.sleep(0.001)


def before(number: int) -> None:
    kill_the_parent()
    set_parent_death_signal(number)


def after(number: int) -> None:
    set_parent_death_signal(number)
    kill_the_parent()


@pytest.mark.parametrize("end", [before, after])
@pytest.mark.parametrize("ignored", [False, True])
def test_it_does_not_start_without_its_supervisor(
    end: Callable[[int], None],
    ignored: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "set_parent_death_signal", end)
    monkeypatch.setattr(supervisor, "refuse_untranslated_calls", lambda: None)
    started = tmp_path / "started"
    # The pipe is closed when the last process has ended.
    read, write = os.pipe()
    job = supervisor.Job(["/bin/touch", str(started)], {}, preserved=write - 2)
    pid = os.fork()
    if pid == 0:
        # As a shell has it for what it starts in the background.
        signal.signal(signal.SIGQUIT, signal.SIG_IGN if ignored else signal.SIG_DFL)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            supervisor._become(job, parent)
        os.waitpid(child, 0)
        os._exit(0)
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert not started.exists()
