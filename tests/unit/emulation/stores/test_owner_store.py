import errno
import os
import random
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.emulation.stores import journal, owner_store
from runrootless.emulation.stores.owner_store import LINE_SIZE, OwnerStore
from runrootless.emulation.stores.record import NOTHING, Record
from runrootless.emulation.stores.side_store import without_checksum

pytestmark = pytest.mark.usefixtures("as_an_agent")

ROOT_DEVICE = os.makedev(8, 1)
TMPFS = os.makedev(0, 40)
NAME = ".rootfs.ownership"


def store(
    path: Path, root_device: int = ROOT_DEVICE, lasting: dict[int, int] | None = None
) -> OwnerStore:
    found = OwnerStore()
    found.use(os.open(path / NAME, os.O_RDWR | os.O_CREAT, 0o600))
    found.open(root_device, lasting)
    return found


def size(path: Path) -> int:
    return os.stat(path / NAME).st_size


def test_records_outlive_the_store(tmp_path: Path) -> None:
    store(tmp_path).keep(ROOT_DEVICE, 7, 123, Record(1, 2))
    assert store(tmp_path).find(ROOT_DEVICE, 7) == (123, Record(1, 2))


def test_the_last_record_counts(tmp_path: Path) -> None:
    first = store(tmp_path)
    first.keep(ROOT_DEVICE, 7, 123, Record(1, 2))
    first.keep(ROOT_DEVICE, 7, 124, Record(3, 4))
    assert first.find(ROOT_DEVICE, 7) == store(tmp_path).find(ROOT_DEVICE, 7) == (124, Record(3, 4))


def test_two_stores_see_each_others_records(tmp_path: Path) -> None:
    first, second = store(tmp_path), store(tmp_path)
    first.keep(ROOT_DEVICE, 1, 1, Record(1, 1))
    assert second.find(ROOT_DEVICE, 1) == (1, Record(1, 1))
    second.keep(ROOT_DEVICE, 1, 1, Record(2, 2))
    assert first.find(ROOT_DEVICE, 1) == (1, Record(2, 2))


def test_the_root_file_system_may_have_another_number_later(tmp_path: Path) -> None:
    store(tmp_path).keep(ROOT_DEVICE, 7, 123, Record(1, 2))
    later = os.makedev(8, 17)
    assert store(tmp_path, later).find(later, 7) == (123, Record(1, 2))


def test_what_is_gone_with_the_container_stays_in_memory(tmp_path: Path) -> None:
    first = store(tmp_path)
    first.keep(TMPFS, 7, 123, Record(1, 2))
    assert first.find(TMPFS, 7) == (123, Record(1, 2))
    assert size(tmp_path) == 0
    # As the next worker does.
    first.open(ROOT_DEVICE)
    assert first.find(TMPFS, 7) == (123, Record(1, 2))


NFS = os.makedev(0, 50)


def test_a_users_store_keeps_all(tmp_path: Path) -> None:
    first = store(tmp_path, lasting={NFS: 1 << 63 | 7})
    first.keep(TMPFS, 7, 123, Record(1, 2))
    first.keep(NFS, 7, 123, Record(3, 4))
    # Mounted again, or on another host, it has another number.
    later = store(tmp_path, lasting={NFS + 1: 1 << 63 | 7})
    assert later.find(NFS + 1, 7) == first.find(NFS, 7) == (123, Record(3, 4))
    assert later.find(NFS, 7) is None
    assert store(tmp_path, lasting={}).find(TMPFS, 7) == (123, Record(1, 2))


def test_that_there_is_nothing_is_not_kept(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.keep(ROOT_DEVICE, 7, 123, NOTHING)
    assert size(tmp_path) == 0
    kept.keep(ROOT_DEVICE, 7, 123, Record(1, 2))
    # The number is another file's by now.
    kept.keep(ROOT_DEVICE, 7, 124, NOTHING)
    assert size(tmp_path) == 2 * LINE_SIZE
    kept.keep(ROOT_DEVICE, 7, 123, NOTHING)
    assert store(tmp_path).find(ROOT_DEVICE, 7) is None


def test_without_a_file_records_stay_in_memory() -> None:
    memory = OwnerStore()
    memory.open(ROOT_DEVICE)
    memory.keep(ROOT_DEVICE, 7, 123, Record(1, 2))
    assert memory.find(ROOT_DEVICE, 7) == (123, Record(1, 2))


def test_nothing_is_made_by_asking(tmp_path: Path) -> None:
    assert store(tmp_path).find(ROOT_DEVICE, 7) is None
    assert size(tmp_path) == 0


@given(cut=st.integers(1, LINE_SIZE - 1), noise=st.binary(max_size=LINE_SIZE))
def test_a_line_cut_short_by_a_crash_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("store")
    first = store(path)
    first.keep(ROOT_DEVICE, 1, 1, Record(1, 1))
    first.keep(ROOT_DEVICE, 2, 2, Record(2, 2))
    os.truncate(path / NAME, size(path) - cut)
    with open(path / NAME, "ab") as file:
        file.write(noise)
    second = store(path)
    second.keep(ROOT_DEVICE, 3, 3, Record(3, 3))
    third = store(path)
    assert third.find(ROOT_DEVICE, 1) == (1, Record(1, 1))
    assert third.find(ROOT_DEVICE, 3) == (3, Record(3, 3))


def lines(path: Path) -> bytes:
    return (path / NAME).read_bytes()[LINE_SIZE:]


@given(noise=st.binary(max_size=5 * LINE_SIZE), shift=st.integers(0, LINE_SIZE))
def test_what_an_earlier_version_has_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, shift: int
) -> None:
    path = tmp_path_factory.mktemp("store")
    first = store(path)
    for inode in range(1, 4):
        first.keep(ROOT_DEVICE, inode, inode, Record(inode, inode))
    # Without a first line of its own, and with lines at any place.
    old = lines(path)
    (path / NAME).write_bytes(old[:LINE_SIZE] + noise[:shift] + old[LINE_SIZE:])
    second = store(path)
    second.keep(ROOT_DEVICE, 9, 9, Record(9, 9))
    for inode in (1, 2, 3, 9):
        assert second.find(ROOT_DEVICE, inode) == (inode, Record(inode, inode))
        assert store(path).find(ROOT_DEVICE, inode) == (inode, Record(inode, inode))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Has files compacted from 20 lines on."""
    monkeypatch.setattr(journal, "MINIMUM", 20 * LINE_SIZE)
    return 20


def test_a_file_is_compacted_while_several_use_it(tmp_path: Path, small: int) -> None:
    first, second, idle = store(tmp_path), store(tmp_path), store(tmp_path)
    first.keep(ROOT_DEVICE, 2, 2, Record(5, 5))
    assert idle.find(ROOT_DEVICE, 2) == (2, Record(5, 5))
    first.keep(ROOT_DEVICE, 2, 2, NOTHING)
    for uid in range(1, 200):
        first.keep(ROOT_DEVICE, 1, 1, Record(uid, uid))
        second.keep(ROOT_DEVICE, 3, 3, Record(uid, uid))
        assert second.find(ROOT_DEVICE, 1) == (1, Record(uid, uid))
        assert first.find(ROOT_DEVICE, 3) == (3, Record(uid, uid))
        assert size(tmp_path) <= (small + 1) * LINE_SIZE
    for kept in (idle, store(tmp_path)):
        assert kept.find(ROOT_DEVICE, 1) == (1, Record(199, 199))
        assert kept.find(ROOT_DEVICE, 2) is None


def test_a_file_that_is_as_large_as_before_is_read_all_the_same(tmp_path: Path, small: int) -> None:
    first, second = store(tmp_path), store(tmp_path)
    for uid in range(1, 12):
        first.keep(ROOT_DEVICE, 1, 1, Record(uid, uid))
    assert second.find(ROOT_DEVICE, 1) == (1, Record(11, 11))
    before = size(tmp_path)
    grew = False
    for uid in range(12, 100):
        first.keep(ROOT_DEVICE, 1, 1, Record(uid, uid))
        grew = grew or size(tmp_path) < before
        if grew and size(tmp_path) == before:
            break
    assert size(tmp_path) == before
    assert second.find(ROOT_DEVICE, 1) == (1, Record(uid, uid))


def test_what_is_in_memory_is_compacted_too(tmp_path: Path, small: int) -> None:
    kept = store(tmp_path)
    for uid in range(1, 200):
        kept.keep(TMPFS, 1, 1, Record(uid, uid))
        assert os.fstat(kept._memory).st_size <= (small + 1) * LINE_SIZE
    kept.open(ROOT_DEVICE)
    assert kept.find(TMPFS, 1) == (1, Record(199, 199))


class Killed(BaseException):
    pass


@given(
    changes=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=25, max_size=60),
    step=st.integers(0, 6),
    part=st.floats(0, 1),
)
def test_killed_while_it_compacts_it_has_lost_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, int]],
    step: int,
    part: float,
) -> None:
    path = tmp_path_factory.mktemp("store")
    first, reader = store(path), store(path)
    expected: dict[int, object] = {}
    write, truncate = os.pwrite, os.ftruncate
    steps = 0

    def killed() -> bool:
        nonlocal steps
        steps += 1
        return steps > step

    def write_or_die(fd: int, data: bytes, offset: int) -> int:
        if not killed():
            return write(fd, data, offset)
        write(fd, data[: int(len(data) * part)], offset)
        raise Killed

    def truncate_or_die(fd: int, length: int) -> None:
        if killed():
            raise Killed
        truncate(fd, length)

    for inode, uid in changes:
        first.keep(ROOT_DEVICE, inode, inode, Record(uid, uid))
        expected[inode] = (inode, Record(uid, uid)) if uid else None
    assert reader.find(ROOT_DEVICE, changes[0][0]) == expected[changes[0][0]]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "pwrite", write_or_die)
        monkeypatch.setattr(os, "ftruncate", truncate_or_die)
        kept = first._kept
        try:
            kept._compact()
        except Killed:
            pass
    # The lock goes with the process; here it was never taken.
    for other in (reader, store(path)):
        assert {inode: other.find(ROOT_DEVICE, inode) for inode in expected} == expected
    reader.keep(ROOT_DEVICE, 7, 7, Record(7, 7))
    last = store(path)
    assert {inode: last.find(ROOT_DEVICE, inode) for inode in expected} == expected
    assert last.find(ROOT_DEVICE, 7) == (7, Record(7, 7))


_HAMMER = """
import os, sys
from runrootless.emulation.stores import journal
from runrootless.emulation.stores.owner_store import LINE_SIZE, OwnerStore
from runrootless.emulation.stores.record import Record
path, own, device = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
journal.MINIMUM = 50 * LINE_SIZE
store = OwnerStore()
store.use(os.open(path, os.O_RDWR))
store.open(device)
number = 0
while True:
    number += 1
    inode = own + number % 7
    found = store.find(device, inode)
    store.keep(device, inode, number, Record(own, number))
    assert store.find(device, inode) == (number, Record(own, number))
    print(inode, number, flush=True)
"""


def test_processes_that_are_killed_while_they_write_lose_nothing(tmp_path: Path) -> None:
    reader = store(tmp_path)
    last: dict[int, int] = {}
    rounds = random.Random(1)
    for _ in range(6):
        hammers = [
            subprocess.Popen(
                [sys.executable, "-c", _HAMMER, tmp_path / NAME, str(own), str(ROOT_DEVICE)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for own in (100, 200, 300)
        ]
        for hammer in rounds.sample(hammers, 3):
            assert hammer.stdout is not None
            for _ in range(rounds.randrange(50, 300)):
                inode, number = map(int, hammer.stdout.readline().split())
                last[inode] = number
            hammer.kill()
            for line in hammer.stdout:
                if line.endswith("\n"):
                    inode, number = map(int, line.split())
                    last[inode] = number
            hammer.wait()
    for kept in (reader, store(tmp_path)):
        for inode, number in last.items():
            found = kept.find(ROOT_DEVICE, inode)
            assert found is not None
            # Killed between writing and telling, it was one change further.
            assert found[1].gid in (number, number + 7)
    assert size(tmp_path) <= 200 * LINE_SIZE


def test_threads_share_a_store(tmp_path: Path, small: int) -> None:
    kept, other = store(tmp_path), store(tmp_path)

    def work(own: int) -> None:
        for number in range(1, 200):
            kept.keep(ROOT_DEVICE, own, 1, Record(own, number))
            assert kept.find(ROOT_DEVICE, own) == (1, Record(own, number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(1, 5)))
    for own in range(1, 5):
        assert other.find(ROOT_DEVICE, own) == (1, Record(own, 199))


def failed(kept: OwnerStore, inode: int, record: Record, device: int = ROOT_DEVICE) -> int | None:
    try:
        kept.keep(device, inode, 1, record)
    except OSError as failure:
        return failure.errno
    return None


@pytest.mark.parametrize("device", [ROOT_DEVICE, TMPFS])
def test_there_is_a_limit_to_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: int
) -> None:
    monkeypatch.setattr(owner_store, "LIMIT", 5)
    kept = store(tmp_path)
    results = [failed(kept, inode, Record(1, 1), device) for inode in range(1, 8)]
    assert results == [None] * 5 + [errno.ENOSPC] * 2
    assert failed(kept, 1, Record(2, 2), device) is None
    assert failed(kept, 1, NOTHING, device) is None
    assert failed(kept, 7, Record(1, 1), device) is None


def test_a_full_disk_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    kept, other = store(tmp_path), store(tmp_path)
    kept.keep(ROOT_DEVICE, 1, 1, Record(1, 1))
    before = (tmp_path / NAME).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in range(LINE_SIZE):
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, hard))
        try:
            assert failed(kept, 2, Record(2, 2)) == errno.ENOSPC
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (tmp_path / NAME).read_bytes() == before
        assert kept.find(ROOT_DEVICE, 2) is other.find(ROOT_DEVICE, 2) is None
    kept.keep(ROOT_DEVICE, 2, 2, Record(2, 2))
    assert other.find(ROOT_DEVICE, 2) == (2, Record(2, 2))


def test_a_disk_too_full_to_compact_does_without(tmp_path: Path, small: int) -> None:
    kept = store(tmp_path)
    for inode in range(1, 19):
        kept.keep(ROOT_DEVICE, inode, 1, Record(1, 1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (45 * LINE_SIZE, hard))
    try:
        for number in range(2, 26):
            kept.keep(ROOT_DEVICE, 1, 1, Record(number, number))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert kept.find(ROOT_DEVICE, 1) == store(tmp_path).find(ROOT_DEVICE, 1)
    for number in range(26, 60):
        kept.keep(ROOT_DEVICE, 1, 1, Record(number, number))
    assert size(tmp_path) <= 40 * LINE_SIZE
    assert store(tmp_path).find(ROOT_DEVICE, 1) == (1, Record(59, 59))


def test_what_may_only_be_read_is_not_changed(tmp_path: Path) -> None:
    store(tmp_path).keep(ROOT_DEVICE, 1, 1, Record(1, 1))
    kept = OwnerStore()
    kept.use(os.open(tmp_path / NAME, os.O_RDONLY), False)
    kept.open(ROOT_DEVICE)
    assert kept.find(ROOT_DEVICE, 1) == (1, Record(1, 1))
    assert not kept.lasts(ROOT_DEVICE)
    assert failed(kept, 1, Record(2, 2)) == errno.EROFS
    assert kept.find(ROOT_DEVICE, 1) == (1, Record(1, 1))


@given(data=st.binary(max_size=300))
def test_whatever_is_in_the_file_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("store")
    (path / NAME).write_bytes(data)
    kept = store(path)
    kept.find(ROOT_DEVICE, 1)
    kept.keep(ROOT_DEVICE, 1, 1, Record(1, 1))
    assert kept.find(ROOT_DEVICE, 1) == store(path).find(ROOT_DEVICE, 1) == (1, Record(1, 1))


@pytest.mark.parametrize(
    "block", [b"\0", b"\n", b"\xff" * 7 + b"\0", random.Random(2).randbytes(997)]
)
def test_garbage_is_passed_over_without_a_search_at_each_byte(
    tmp_path: Path, block: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    amount = 4 << 20
    (tmp_path / NAME).write_bytes(block * (amount // len(block)))
    calls = 0

    def counted(line: bytes) -> bytes | None:
        nonlocal calls
        calls += 1
        return without_checksum(line)

    monkeypatch.setattr(owner_store, "without_checksum", counted)
    kept = store(tmp_path)
    assert kept.find(ROOT_DEVICE, 1) is None
    assert calls < amount / LINE_SIZE + (1 << 17)
