import errno
import fcntl
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.emulation import attribute_store
from runrootless.emulation.attribute_store import NAMES_LIMIT, AttributeStore

pytestmark = pytest.mark.usefixtures("as_an_agent")

ROOT_DEVICE = os.makedev(8, 1)
TMPFS = os.makedev(0, 40)
NAME = ".rootfs.attributes"
LABEL = b"security.selinux"
FILE = ROOT_DEVICE, 7, 123


def store(path: Path, root_device: int = ROOT_DEVICE) -> AttributeStore:
    found = AttributeStore()
    found.open(os.open(path, os.O_RDONLY), NAME, root_device)
    return found


def attributes(kept: AttributeStore, device: int = ROOT_DEVICE, inode: int = 7) -> object:
    found = kept.find(device, inode)
    return found and (found[0], dict(found[1]))


def error(kept: AttributeStore, name: bytes, value: bytes, device: int = ROOT_DEVICE) -> int | None:
    try:
        kept.keep(device, 7, 123, name, value)
    except OSError as failure:
        return failure.errno
    return None


def test_attributes_outlive_the_store(tmp_path: Path) -> None:
    first = store(tmp_path)
    first.keep(*FILE, LABEL, b"a")
    first.keep(*FILE, b"trusted.x", b"\n\0" * 32768)
    first.keep(*FILE, b"trusted.y", b"")
    first.keep(*FILE, LABEL, b"b")
    first.remove(*FILE, b"trusted.y")
    kept = (123, {LABEL: b"b", b"trusted.x": b"\n\0" * 32768})
    assert attributes(first) == attributes(store(tmp_path)) == kept


def test_a_file_whose_last_attribute_is_removed_is_forgotten(tmp_path: Path) -> None:
    first = store(tmp_path)
    first.keep(*FILE, LABEL, b"a")
    first.remove(*FILE, LABEL)
    assert attributes(first) is attributes(store(tmp_path)) is None


def test_two_stores_see_each_others_changes(tmp_path: Path) -> None:
    first, second = store(tmp_path), store(tmp_path)
    first.keep(*FILE, LABEL, b"a")
    assert attributes(second) == (123, {LABEL: b"a"})
    second.keep(*FILE, b"trusted.x", b"1")
    first.keep(*FILE, b"trusted.y", b"2")
    second.remove(*FILE, LABEL)
    both = (123, {b"trusted.x": b"1", b"trusted.y": b"2"})
    assert attributes(first) == attributes(second) == attributes(store(tmp_path)) == both


def test_a_number_that_is_used_again_inherits_nothing(tmp_path: Path) -> None:
    first = store(tmp_path)
    first.keep(*FILE, LABEL, b"a")
    first.keep(ROOT_DEVICE, 7, 124, b"trusted.x", b"1")
    first.remove(*FILE, b"trusted.x")
    assert attributes(first) == attributes(store(tmp_path)) == (124, {b"trusted.x": b"1"})


def test_the_root_file_system_may_have_another_number_later(tmp_path: Path) -> None:
    store(tmp_path).keep(*FILE, LABEL, b"a")
    later = os.makedev(8, 17)
    assert attributes(store(tmp_path, later), later) == (123, {LABEL: b"a"})


def test_what_is_gone_with_the_container_stays_in_memory(tmp_path: Path) -> None:
    first = store(tmp_path)
    first.keep(TMPFS, 7, 123, LABEL, b"a")
    assert attributes(first, TMPFS) == (123, {LABEL: b"a"})
    first.remove(TMPFS, 7, 123, LABEL)
    assert attributes(first, TMPFS) is None
    assert not os.listdir(tmp_path)


def test_what_changes_nothing_takes_no_room(tmp_path: Path) -> None:
    first = store(tmp_path)
    assert attributes(first) is None
    assert not os.listdir(tmp_path)
    first.keep(*FILE, LABEL, b"a")
    size = os.stat(tmp_path / NAME).st_size
    first.keep(*FILE, LABEL, b"a")
    assert os.stat(tmp_path / NAME).st_size == size


@given(cut=st.integers(2, 40), noise=st.binary(max_size=80))
def test_a_line_cut_short_by_a_crash_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("store")
    first = store(path)
    for inode in (1, 2):
        first.keep(ROOT_DEVICE, inode, 1, LABEL, b"%d" % inode)
    os.truncate(path / NAME, os.stat(path / NAME).st_size - cut)
    with open(path / NAME, "ab") as file:
        file.write(noise)
    second = store(path)
    second.keep(ROOT_DEVICE, 3, 3, LABEL, b"3")
    for kept in (second, store(path)):
        assert attributes(kept, inode=1) == (1, {LABEL: b"1"})
        assert attributes(kept, inode=2) is None
        assert attributes(kept, inode=3) == (3, {LABEL: b"3"})


@given(value=st.binary(max_size=100), split=st.integers(0, 200))
def test_a_line_that_is_just_being_written_is_waited_for(
    tmp_path_factory: pytest.TempPathFactory, value: bytes, split: int
) -> None:
    path = tmp_path_factory.mktemp("store")
    first = store(path)
    first.keep(*FILE, LABEL, value)
    line = (path / NAME).read_bytes()
    os.truncate(path / NAME, 0)
    second = store(path)
    for part in (line[:split], line[split:]):
        with open(path / NAME, "ab") as file:
            file.write(part)
        found = attributes(second)
    assert found == (123, {LABEL: value})


def test_a_large_file_of_old_lines_is_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AttributeStore, "compaction_size", 1000)
    first = store(tmp_path)
    for number in range(20):
        first.keep(*FILE, LABEL, b"%d" % number)
        first.keep(ROOT_DEVICE, 8, 1, LABEL, b"%d" % number)
    first.remove(ROOT_DEVICE, 8, 1, LABEL)
    size = os.stat(tmp_path / NAME).st_size
    # Somebody uses the file: it stays as it is.
    second = store(tmp_path)
    assert os.stat(tmp_path / NAME).st_size == size
    for user in (first, second):
        os.close(user._fd)
    third = store(tmp_path)
    assert os.stat(tmp_path / NAME).st_size < size / 20
    assert attributes(third) == (123, {LABEL: b"19"})
    third.keep(*FILE, b"trusted.x", b"1")
    fourth = store(tmp_path)
    assert attributes(fourth) == (123, {LABEL: b"19", b"trusted.x": b"1"})
    assert attributes(fourth, inode=8) is None
    assert os.listdir(tmp_path) == [NAME]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(attribute_store, "LIMIT", 20000)
    monkeypatch.setattr(attribute_store, "FILE_LIMIT", 40000)
    return 20000


def test_changes_do_not_fill_the_file(tmp_path: Path, limit: int) -> None:
    kept = store(tmp_path)
    kept.keep(TMPFS, 1, 1, LABEL, b"in memory")
    for number in range(1000):
        kept.keep(*FILE, LABEL, b"%05d" % number * 100)
        kept.keep(*FILE, b"trusted.x", b"1")
        kept.remove(*FILE, b"trusted.x")
        assert os.stat(tmp_path / NAME).st_size <= 4 * limit
    assert attributes(kept) == attributes(store(tmp_path)) == (123, {LABEL: b"00999" * 100})
    assert attributes(kept, TMPFS, 1) == (1, {LABEL: b"in memory"})


def test_what_two_use_is_not_compacted_but_kept(tmp_path: Path, limit: int) -> None:
    first, second = store(tmp_path), store(tmp_path)
    second.keep(ROOT_DEVICE, 8, 1, LABEL, b"1")
    number = 0
    while error(first, LABEL, b"%05d" % number * 100) is None:
        number += 1
    last = (123, {LABEL: b"%05d" % (number - 1) * 100})
    assert attributes(first) == attributes(second) == last
    # What is there can be removed.
    second.remove(*FILE, LABEL)
    assert attributes(first) is None
    # It is alone by now.
    os.close(first._fd)
    assert error(second, LABEL, b"v" * 1000) is None
    assert attributes(second) == attributes(store(tmp_path)) == (123, {LABEL: b"v" * 1000})
    assert os.stat(tmp_path / NAME).st_size < limit


def test_a_file_that_another_has_compacted_is_left_for_the_new_one(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store(tmp_path)
    for number in range(52):
        first.keep(*FILE, LABEL, b"%05d" % number * 100)
    # As while it exchanges its lock for another one.
    fcntl.flock(first._fd, fcntl.LOCK_UN)
    monkeypatch.setattr(AttributeStore, "compaction_size", 1000)
    second = store(tmp_path)
    second.keep(*FILE, b"trusted.x", b"1")
    first.keep(*FILE, LABEL, b"v" * 1500)
    both = (123, {LABEL: b"v" * 1500, b"trusted.x": b"1"})
    assert attributes(first) == attributes(second) == attributes(store(tmp_path)) == both


@pytest.mark.parametrize("device", [ROOT_DEVICE, TMPFS])
def test_there_is_a_limit_to_what_is_kept(tmp_path: Path, limit: int, device: int) -> None:
    kept = store(tmp_path)
    assert error(kept, LABEL, b"v" * limit, device) == errno.ENOSPC
    number = 0
    while error(kept, b"trusted.%d" % number, b"v" * 100, device) is None:
        number += 1
    assert 60 < number < limit / 100
    assert error(kept, LABEL, b"v" * 100, device) == errno.ENOSPC
    kept.remove(device, 7, 123, b"trusted.0")
    assert error(kept, b"trusted.0", b"v" * 100, device) is None


def test_there_is_a_limit_to_the_names_of_one_file(tmp_path: Path) -> None:
    kept = AttributeStore()
    names = [b"trusted.%0247d" % number for number in range(NAMES_LIMIT // 256)]
    assert {error(kept, name, b"") for name in names} == {None}
    assert error(kept, b"trusted.x", b"") == errno.ENOSPC
    assert error(kept, names[0], b"another") is None


def test_a_line_that_cannot_be_written_as_a_whole_is_an_error(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.keep(*FILE, LABEL, b"a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(tmp_path / NAME).st_size + 20, hard))
    try:
        assert error(kept, LABEL, b"b") == errno.ENOSPC
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert attributes(kept) == (123, {LABEL: b"a"})
    kept.keep(*FILE, LABEL, b"c")
    assert attributes(kept) == attributes(store(tmp_path)) == (123, {LABEL: b"c"})
