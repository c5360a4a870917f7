import errno
import os
import resource
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runrootless.emulation.stores import attribute_store, journal
from runrootless.emulation.stores.attribute_store import NAMES_LIMIT, AttributeStore

pytestmark = pytest.mark.usefixtures("as_an_agent")

ROOT_DEVICE = os.makedev(8, 1)
TMPFS = os.makedev(0, 40)
NAME = ".rootfs.attributes"
LABEL = b"security.selinux"
FILE = ROOT_DEVICE, 7, 123


def store(path: Path, root_device: int = ROOT_DEVICE) -> AttributeStore:
    found = AttributeStore()
    found.use(os.open(path / NAME, os.O_RDWR | os.O_CREAT, 0o600))
    found.open(root_device)
    return found


def size(path: Path) -> int:
    return os.stat(path / NAME).st_size


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
    first.keep(TMPFS, 7, 123, LABEL, b"b")
    assert size(tmp_path) == 0
    # As the next worker does.
    first.open(ROOT_DEVICE)
    assert attributes(first, TMPFS) == (123, {LABEL: b"b"})


def test_what_changes_nothing_takes_no_room(tmp_path: Path) -> None:
    first = store(tmp_path)
    assert attributes(first) is None
    assert size(tmp_path) == 0
    first.keep(*FILE, LABEL, b"a")
    before = size(tmp_path)
    first.keep(*FILE, LABEL, b"a")
    assert size(tmp_path) == before


@given(cut=st.integers(2, 40), noise=st.binary(max_size=80))
def test_a_line_cut_short_by_a_crash_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("store")
    first = store(path)
    for inode in (1, 2):
        first.keep(ROOT_DEVICE, inode, 1, LABEL, b"%d" % inode)
    written = (path / NAME).read_bytes()
    # Noise that is what was cut off is none.
    assume(not (written[:-cut] + noise + b"\n").startswith(written))
    (path / NAME).write_bytes(written[:-cut] + noise)
    second = store(path)
    second.keep(ROOT_DEVICE, 3, 3, LABEL, b"3")
    for kept in (second, store(path)):
        assert attributes(kept, inode=1) == (1, {LABEL: b"1"})
        # What is left may still be all that it says.
        assert attributes(kept, inode=2) in (None, (1, {LABEL: b"2"}))
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


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(attribute_store, "LIMIT", 20000)
    monkeypatch.setattr(journal, "MINIMUM", 1000)
    return 20000


def test_changes_do_not_fill_the_file(tmp_path: Path, limit: int) -> None:
    first, second = store(tmp_path), store(tmp_path)
    first.keep(TMPFS, 1, 1, LABEL, b"in memory")
    for number in range(1000):
        first.keep(*FILE, LABEL, b"%05d" % number * 100)
        second.keep(*FILE, b"trusted.x", b"1")
        first.keep(ROOT_DEVICE, 8, 1, LABEL, b"%d" % number)
        second.remove(*FILE, b"trusted.x")
        first.remove(ROOT_DEVICE, 8, 1, LABEL)
        assert size(tmp_path) <= 3000
    for kept in (first, second, store(tmp_path)):
        assert attributes(kept) == (123, {LABEL: b"00999" * 100})
        assert attributes(kept, inode=8) is None
    assert attributes(first, TMPFS, 1) == (1, {LABEL: b"in memory"})


def test_what_is_there_can_always_be_removed(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = store(tmp_path)
    for number in range(10):
        kept.keep(*FILE, b"trusted.%d" % number, b"v" * 1000)
    monkeypatch.setattr(kept._kept, "_limit", 0)
    assert error(kept, LABEL, b"") == errno.ENOSPC
    for number in range(10):
        kept.remove(*FILE, b"trusted.%d" % number)
    assert attributes(kept) is attributes(store(tmp_path)) is None


def test_there_is_a_limit_to_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribute_store, "FILES_LIMIT", 3)
    kept = store(tmp_path)
    for inode in range(3):
        kept.keep(ROOT_DEVICE, inode, 1, LABEL, b"a")
    assert error(kept, LABEL, b"a") == errno.ENOSPC
    kept.keep(ROOT_DEVICE, 1, 1, LABEL, b"b")
    kept.remove(ROOT_DEVICE, 1, 1, LABEL)
    assert error(kept, LABEL, b"a") is None


@given(data=st.binary(max_size=300))
def test_whatever_is_in_the_file_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("store")
    (path / NAME).write_bytes(data)
    kept = store(path)
    attributes(kept)
    kept.keep(*FILE, LABEL, b"a")
    assert attributes(kept) == attributes(store(path)) == (123, {LABEL: b"a"})


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
    kept.open(ROOT_DEVICE)
    names = [b"trusted.%0247d" % number for number in range(NAMES_LIMIT // 256)]
    assert {error(kept, name, b"") for name in names} == {None}
    assert error(kept, b"trusted.x", b"") == errno.ENOSPC
    assert error(kept, names[0], b"another") is None


def test_a_line_that_cannot_be_written_as_a_whole_is_an_error(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.keep(*FILE, LABEL, b"a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size(tmp_path) + 20, hard))
    try:
        assert error(kept, LABEL, b"b") == errno.ENOSPC
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert attributes(kept) == (123, {LABEL: b"a"})
    kept.keep(*FILE, LABEL, b"c")
    assert attributes(kept) == attributes(store(tmp_path)) == (123, {LABEL: b"c"})
