"""Threads that differ, by threads of this process: only root may mark other threads."""

import os
import threading
from collections.abc import Iterator

import pytest

from runrootless.emulation.callers.credential_table import (
    INFINITY,
    PLAIN,
    CredentialTable,
    is_varied,
)
from runrootless.emulation.callers.credentials import ROOT, initial
from runrootless.emulation.callers.threads import DEFAULT_SLACK, Threads
from runrootless.linux.processes import set_timer_slack, timer_slack

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_SYS_NICE over this process")

USER = initial(5, 6, (7,))


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[CredentialTable]:
    monkeypatch.chdir("/proc")
    fd = os.memfd_create("credentials")
    yield CredentialTable(fd)
    os.close(fd)


@pytest.fixture
def others() -> Iterator[list[int]]:
    """Two threads besides this one."""
    stop, started, found = threading.Event(), threading.Barrier(3), []

    def wait() -> None:
        found.append(threading.get_native_id())
        started.wait()
        stop.wait()

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    started.wait()
    yield found
    stop.set()
    for thread in threads:
        thread.join()


def slacks(threads: list[int]) -> list[int]:
    return [timer_slack(b"%d" % thread) for thread in threads]


def test_one_differs(table: CredentialTable, others: list[int]) -> None:
    first, second = others
    threads = Threads(table)
    number = threads.change(first, INFINITY, USER, PLAIN, 0)
    assert is_varied(number)
    assert table.decode(number) is None
    assert threads.credentials(b"%d" % first, ROOT) == USER
    assert threads.credentials(b"%d" % second, ROOT) == ROOT
    assert threads.change(first, number, ROOT, PLAIN, 0) == INFINITY
    assert slacks(others) == [DEFAULT_SLACK, DEFAULT_SLACK]


def test_all_have_changed(table: CredentialTable, others: list[int]) -> None:
    threads = Threads(table)
    number = INFINITY
    # There may be more: of what runs the tests.
    for thread in map(int, os.listdir("/proc/self/task")):
        number = threads.change(thread, number, USER, PLAIN, 0)
    assert number == table.encode(USER)
    threads.clear(os.getpid())
    assert slacks([*others, os.getpid()]) == [DEFAULT_SLACK] * 3


def test_a_mark_that_was_left_counts_for_nothing(table: CredentialTable, others: list[int]) -> None:
    first, second = others
    threads = Threads(table)
    threads.change(first, INFINITY, USER, PLAIN, 0)
    threads.change(second, INFINITY, initial(9, 9), PLAIN, 0)
    assert threads.credentials(b"%d" % first, ROOT) == ROOT
    threads.clear(second)


def test_a_slack_that_is_no_mark(table: CredentialTable, others: list[int]) -> None:
    first, second = others
    threads = Threads(table)
    threads.change(first, INFINITY, USER, PLAIN, 0)
    set_timer_slack(second, 100_000)
    assert threads.credentials(b"%d" % second, ROOT) == ROOT
    assert threads.credentials(b"no such thread", ROOT) == ROOT
    threads.clear(first)


def test_a_real_time_thread_takes_its_process_along(
    table: CredentialTable, others: list[int]
) -> None:
    first, _ = others
    try:
        os.sched_setscheduler(first, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pytest.skip("no real-time scheduling here, such as in a cgroup without a share of it")
    if timer_slack(b"%d" % first):
        pytest.skip("this kernel keeps the timer slack of real-time threads")
    assert Threads(table).change(first, INFINITY, USER, PLAIN, 0) == table.encode(USER)


def test_threads_of_a_user_do_not_differ(table: CredentialTable, others: list[int]) -> None:
    """They could choose their marks, and with them whose credentials they have."""
    first, second = others
    number = table.encode(initial(33, 33))
    new = initial(33, 33).with_securebits(16)
    assert Threads(table).change(first, number, new, PLAIN, 33) == table.encode(new)
    assert slacks([first, second]) == [DEFAULT_SLACK, DEFAULT_SLACK]
