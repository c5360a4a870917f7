import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.emulation.owner_store import LINE_SIZE, OwnerStore
from runrootless.emulation.record import NOTHING, Record

pytestmark = pytest.mark.usefixtures("as_an_agent")

ROOT_DEVICE = os.makedev(8, 1)
TMPFS = os.makedev(0, 40)
NAME = ".rootfs.ownership"


def store(path: Path, root_device: int = ROOT_DEVICE) -> OwnerStore:
    found = OwnerStore()
    found.open(os.open(path, os.O_RDONLY), NAME, root_device)
    return found


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
    assert not os.listdir(tmp_path)


NFS = os.makedev(0, 50)


def test_a_users_store_keeps_all(tmp_path: Path) -> None:
    def users_store(lasting: dict[int, int]) -> OwnerStore:
        found = OwnerStore()
        found.open(os.open(tmp_path, os.O_RDONLY), NAME, ROOT_DEVICE, lasting)
        return found

    first = users_store({NFS: 1 << 63 | 7})
    first.keep(TMPFS, 7, 123, Record(1, 2))
    first.keep(NFS, 7, 123, Record(3, 4))
    # Mounted again, or on another host, it has another number.
    later = users_store({NFS + 1: 1 << 63 | 7})
    assert later.find(NFS + 1, 7) == first.find(NFS, 7) == (123, Record(3, 4))
    assert later.find(NFS, 7) is None
    assert users_store({}).find(TMPFS, 7) == (123, Record(1, 2))


def test_that_there_is_nothing_is_not_kept(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.keep(ROOT_DEVICE, 7, 123, NOTHING)
    assert not os.listdir(tmp_path)
    kept.keep(ROOT_DEVICE, 7, 123, Record(1, 2))
    # The number is another file's by now.
    kept.keep(ROOT_DEVICE, 7, 124, NOTHING)
    assert os.stat(tmp_path / NAME).st_size == LINE_SIZE
    kept.keep(ROOT_DEVICE, 7, 123, NOTHING)
    assert store(tmp_path).find(ROOT_DEVICE, 7) == (123, NOTHING)


def test_without_a_directory_records_stay_in_memory() -> None:
    memory = OwnerStore()
    memory.keep(ROOT_DEVICE, 7, 123, Record(1, 2))
    assert memory.find(ROOT_DEVICE, 7) == (123, Record(1, 2))


def test_nothing_is_made_by_asking(tmp_path: Path) -> None:
    assert store(tmp_path).find(ROOT_DEVICE, 7) is None
    assert not os.listdir(tmp_path)


def test_the_file_is_nobody_elses_to_read(tmp_path: Path) -> None:
    store(tmp_path).keep(ROOT_DEVICE, 7, 123, Record(1, 2))
    assert os.stat(tmp_path / NAME).st_mode & 0o777 == 0o600


def test_a_symlink_in_its_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"")
    (tmp_path / NAME).symlink_to(target)
    first = store(tmp_path)
    first.keep(ROOT_DEVICE, 7, 123, Record(1, 2))
    assert target.read_bytes() == b""
    assert first.find(ROOT_DEVICE, 7) == (123, Record(1, 2))


@given(cut=st.integers(1, LINE_SIZE - 1), noise=st.binary(max_size=LINE_SIZE))
def test_a_line_cut_short_by_a_crash_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("store")
    first = store(path)
    first.keep(ROOT_DEVICE, 1, 1, Record(1, 1))
    first.keep(ROOT_DEVICE, 2, 2, Record(2, 2))
    os.truncate(path / NAME, 2 * LINE_SIZE - cut)
    with open(path / NAME, "ab") as file:
        file.write(noise)
    second = store(path)
    second.keep(ROOT_DEVICE, 3, 3, Record(3, 3))
    third = store(path)
    assert third.find(ROOT_DEVICE, 1) == (1, Record(1, 1))
    assert third.find(ROOT_DEVICE, 3) == (3, Record(3, 3))


def test_a_large_file_of_old_records_is_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OwnerStore, "compaction_size", 10 * LINE_SIZE)
    first = store(tmp_path)
    for uid in range(20):
        first.keep(ROOT_DEVICE, 1, 1, Record(uid, uid))
    first.keep(ROOT_DEVICE, 2, 2, Record(5, 5))
    first.keep(ROOT_DEVICE, 2, 2, NOTHING)
    size = os.stat(tmp_path / NAME).st_size
    # Somebody uses the file: it stays as it is.
    second = store(tmp_path)
    assert os.stat(tmp_path / NAME).st_size == size
    for user in (first, second):
        os.close(user._fd)
    third = store(tmp_path)
    assert os.stat(tmp_path / NAME).st_size == LINE_SIZE
    assert third.find(ROOT_DEVICE, 1) == (1, Record(19, 19))
    assert third.find(ROOT_DEVICE, 2) is None
