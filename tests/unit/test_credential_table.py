import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.emulation import credential_table
from runrootless.emulation.credential_table import (
    INFINITY,
    PLAIN,
    VARIED,
    CredentialTable,
    is_varied,
)
from runrootless.emulation.credentials import ROOT, Credentials, initial

if TYPE_CHECKING:
    from runrootless.emulation.credential_table import State

ID = st.integers(0, 0xFFFFFFFE)
IDS = st.tuples(ID, ID, ID, ID)
CREDENTIALS = st.builds(
    Credentials,
    IDS,
    IDS,
    st.lists(ID, max_size=5).map(lambda groups: tuple(sorted(groups))),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.booleans(),
)

LIMIT = st.integers(0, INFINITY)
STATES = st.one_of(st.just(PLAIN), st.tuples(LIMIT, LIMIT, st.booleans()))


def open_file(path: str | Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)


@given(st.lists(CREDENTIALS, max_size=8))
def test_every_set_comes_back(sets: list[Credentials]) -> None:
    fd = os.memfd_create("credentials")
    ours, others = CredentialTable(fd), CredentialTable(fd)
    numbers = [ours.encode(credentials) for credentials in sets]
    assert all(0 <= number <= INFINITY for number in numbers)
    assert [others.decode(number) for number in numbers] == sets
    assert [others.encode(credentials) for credentials in sets] == numbers
    os.close(fd)


@given(st.lists(st.tuples(CREDENTIALS, STATES), max_size=8))
def test_what_else_is_kept_comes_back(entries: list[tuple[Credentials, "State"]]) -> None:
    fd = os.memfd_create("credentials")
    ours, others = CredentialTable(fd), CredentialTable(fd)
    for credentials, state in entries:
        number = ours.encode(credentials, state)
        varied = ours.encode_varied(credentials, state)
        assert (others.decode(number), others.state(number)) == (credentials, state)
        assert not is_varied(number) and is_varied(varied)
        assert others.decode(varied) is None
        assert (others.base(varied), others.state(varied)) == (credentials, state)
        assert others.base(number) == credentials
    os.close(fd)


@given(ID, ID)
def test_a_plain_user_needs_no_table(uid: int, gid: int) -> None:
    fd = os.memfd_create("credentials")
    number = CredentialTable(fd).encode(initial(uid, gid))
    assert CredentialTable(fd).decode(number) == initial(uid, gid)
    if uid < 2**31 and gid < 2**31:
        assert os.fstat(fd).st_size == 0
    os.close(fd)


def test_root_is_no_limit() -> None:
    table = CredentialTable(-1)
    assert table.encode(ROOT) == INFINITY
    assert table.decode(INFINITY) == ROOT


@pytest.mark.parametrize("number", [0, 1, 1000000, (1 << 62) - 1, 1 << 63, (1 << 63) + 7])
def test_numbers_that_nobody_wrote_are_root(number: int, tmp_path: Path) -> None:
    table = CredentialTable(open_file(tmp_path / "credentials"))
    assert table.decode(number) == ROOT
    assert table.state(number) == PLAIN
    assert table.at(7) is None


def test_numbers_of_threads_that_nobody_wrote_are_root(tmp_path: Path) -> None:
    table = CredentialTable(open_file(tmp_path / "credentials"))
    number = 1 << 63 | VARIED | 7
    assert table.decode(number) is None
    assert (table.base(number), table.state(number)) == (ROOT, PLAIN)


def test_two_writers_agree(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    first, second = CredentialTable(open_file(path)), CredentialTable(open_file(path))
    a = initial(1, 2, (3,))
    b = initial(4, 5, (6,))
    number_a = first.encode(a)
    number_b = second.encode(b)
    assert number_a != number_b
    assert (first.decode(number_b), second.decode(number_a)) == (b, a)


def test_a_full_table_is_enomem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_table, "SIZE_LIMIT", 100)
    table = CredentialTable(open_file(tmp_path / "credentials"))
    known = initial(1, 1, (1,))
    table.encode(known)
    with pytest.raises(OSError) as caught:
        table.encode(initial(2, 2, tuple(range(100))))
    assert caught.value.errno == errno.ENOMEM
    assert table.decode(table.encode(known)) == known
