"""Access control lists: what they permit, and what is kept of them where."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.emulation.files.access_lists import ACCESS, AccessLists, is_refused, permits
from runrootless.emulation.files.attributes import Attributes
from runrootless.emulation.stores.attribute_store import AttributeStore
from runrootless.linux.files import O_PATH, Files

DEFAULT = b"system.posix_acl_default"
NO_ID = 0xFFFFFFFF
READ, WRITE, EXECUTE = 4, 2, 1


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


# rw for the owner, r for user 7, rwx for group 8, all of it less x; nothing for others.
LIST = acl((1, 6, NO_ID), (2, 4, 7), (4, 4, NO_ID), (8, 7, 8), (16, 6, NO_ID), (32, 0, NO_ID))


@pytest.mark.parametrize(
    ("fsuid", "groups", "want", "may"),
    [
        (7, [], READ, True),
        (7, [8], WRITE, False),
        (1, [5], READ, True),
        (1, [5], WRITE, False),
        (1, [5, 8], WRITE, True),
        (1, [8], EXECUTE, False),
        (1, [8], READ | WRITE, True),
        (1, [], READ, False),
    ],
)
def test_what_a_list_permits(fsuid: int, groups: list[int], want: int, may: bool) -> None:
    assert permits(LIST, fsuid, groups.__contains__, 5, want) == may


@given(value=st.binary(max_size=60), want=st.integers(1, 7))
def test_no_value_is_too_odd(value: bytes, want: int) -> None:
    for data in (value, LIST[:4] + value):
        assert permits(data, 1, lambda _: True, 5, want) in (True, False)
        assert is_refused(ACCESS, data, True) in (True, False)


def test_what_the_kernel_refuses_whoever_asks() -> None:
    assert not is_refused(ACCESS, LIST, False)
    assert is_refused(DEFAULT, LIST, False)
    assert not is_refused(DEFAULT, None, True)
    assert is_refused(ACCESS, LIST[:-1], False)
    assert is_refused(ACCESS, b"\1" + LIST[1:], False)
    assert is_refused(ACCESS, acl((2, 4, NO_ID)), False)
    assert is_refused(ACCESS, acl((64, 4, 0)), False)


def held(path: Path) -> int:
    return os.open(path, O_PATH)


pytestmark = pytest.mark.usefixtures("as_an_agent")


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> AccessLists:
    # From where the agent finds what it has open.
    monkeypatch.chdir("/proc")
    files = Files()
    return AccessLists(files, Attributes(files, AttributeStore()))


def test_the_kernel_has_all_but_the_names(lists: AccessLists, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o600)
    file = held(path)
    lists.set(file, ACCESS, LIST)
    assert path.stat().st_mode & 0o777 == 0o660
    native = os.getxattr(path, ACCESS)
    assert native == acl((1, 6, NO_ID), (4, 4, NO_ID), (16, 6, NO_ID), (32, 0, NO_ID))
    assert lists.get(file, ACCESS) == LIST
    # What the mode says goes, as in any list.
    path.chmod(0o640)
    assert lists.get(file, ACCESS) == LIST.replace(
        struct.pack("<HH", 16, 6), struct.pack("<HH", 16, 4)
    )


def test_names_without_their_list_do_not_count(lists: AccessLists, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    file = held(path)
    lists.set(file, ACCESS, LIST)
    # By somebody who does not know.
    os.removexattr(path, ACCESS)
    assert lists.get(file, ACCESS) is None
    path.chmod(0o644)
    lists.set(file, ACCESS, LIST)
    lists.remove(file, ACCESS)
    assert lists.get(file, ACCESS) is None
    assert os.listxattr(path) == []


def test_a_list_that_is_refused_changes_nothing(lists: AccessLists, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    file = held(path)
    lists.set(file, ACCESS, LIST)
    with pytest.raises(OSError, match="Invalid argument"):
        lists.set(file, ACCESS, acl((1, 6, NO_ID), (2, 4, 9), (4, 4, NO_ID), (32, 0, NO_ID)))
    assert lists.get(file, ACCESS) == LIST


def test_what_new_files_inherit(lists: AccessLists, tmp_path: Path) -> None:
    parent = held(tmp_path)
    assert lists.named_default(parent) is None
    lists.set(parent, DEFAULT, LIST)
    file, directory = tmp_path / "file", tmp_path / "directory"
    file.touch(0o666)
    directory.mkdir()
    for path in (file, directory):
        lists.inherit(parent, held(path))
        assert lists.get(held(path), ACCESS) == LIST
    assert lists.get(held(directory), DEFAULT) == LIST
    assert lists.get(held(file), DEFAULT) is None
