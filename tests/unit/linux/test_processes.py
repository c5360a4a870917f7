"""Processes of other pid namespaces, as /proc and the kernel know them."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runrootless.linux import processes
from runrootless.linux.processes import find_process, group_members, seen_processes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes pid namespaces")

SCRIPT = "sleep 1000000 & echo $!; setsid sh -c 'echo $$; exec sleep 1000000' & wait"


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int, int]]:
    """The first process of a pid namespace, and what it calls two others in there.

    The second one leads a process group of its own.
    """
    monkeypatch.chdir("/proc")
    command = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", SCRIPT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        first, second = int(process.stdout.readline()), int(process.stdout.readline())
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            yield int(file.read()), first, second
        process.kill()


def unknown(caller: int, pid: int) -> int:
    raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))


@pytest.mark.parametrize("by_kernel", [True, False])
def test_find_process(
    numbers: tuple[int, int, int], by_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.12 the kernel does not know the question."""
    if not by_kernel:
        monkeypatch.setattr(processes, "_translate", unknown)
    caller, first, second = numbers
    assert find_process(caller, 0) == find_process(caller, 1) == caller
    children = Path(f"{caller}/task/{caller}/children").read_text().split()
    assert {find_process(caller, first), find_process(caller, second)} == set(map(int, children))
    for number in (99999999, -1):
        with pytest.raises(ProcessLookupError):
            find_process(caller, number)


def test_groups(numbers: tuple[int, int, int]) -> None:
    caller, first, second = numbers
    assert group_members(caller, second) == [find_process(caller, second)]
    assert {caller, find_process(caller, first)} <= set(group_members(caller, 0))
    with pytest.raises(ProcessLookupError):
        group_members(caller, 99999999)


def test_seen_processes(numbers: tuple[int, int, int]) -> None:
    caller, first, second = numbers
    seen = {int(number): pid for pid, number, _ in seen_processes(caller)}
    assert seen.keys() == {1, first, second}
    assert seen[first] == find_process(caller, first)
