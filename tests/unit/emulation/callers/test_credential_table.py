import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.emulation.callers.credential_table import (
    INFINITY,
    NOBODY,
    PENDING,
    PLACE_MASK,
    PLAIN,
    VARIED,
    CredentialTable,
    Outcome,
    check_differs,
    is_pending,
    is_varied,
)
from runrootless.emulation.callers.credentials import ROOT, Credentials, initial

if TYPE_CHECKING:
    from runrootless.emulation.callers.credential_table import State

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


@pytest.mark.parametrize("number", [0, 1, 1000000, (1 << 62) - 1])
def test_limits_of_other_programs_are_root(number: int, tmp_path: Path) -> None:
    table = CredentialTable(open_file(tmp_path / "credentials"))
    assert table.decode(number) == ROOT
    assert table.state(number) == PLAIN


@pytest.mark.parametrize("place", [0, 1, 7, PLACE_MASK])
@pytest.mark.parametrize("written", [False, True])
def test_a_number_whose_entry_is_missing_is_nobody(
    place: int, written: bool, tmp_path: Path
) -> None:
    """Nobody has been given it, so it must not be root."""
    table = CredentialTable(open_file(tmp_path / "credentials"))
    if written:
        assert table.encode(initial(1, 2, (3,))) & PLACE_MASK not in (place, 0)
    number = 1 << 63 | place
    assert table.decode(number) == NOBODY
    assert table.state(number) == PLAIN
    assert table.at(place) is None
    assert table.decode(number | VARIED) is table.decode(number | PENDING) is None
    assert table.base(number | VARIED) == table.base(number | PENDING) == NOBODY


def test_two_writers_agree(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    first, second = CredentialTable(open_file(path)), CredentialTable(open_file(path))
    a = initial(1, 2, (3,))
    b = initial(4, 5, (6,))
    number_a = first.encode(a)
    number_b = second.encode(b)
    assert number_a != number_b
    assert (first.decode(number_b), second.decode(number_a)) == (b, a)


OUTCOMES = st.builds(
    Outcome,
    CREDENTIALS,
    CREDENTIALS,
    CREDENTIALS,
    st.tuples(st.booleans(), st.booleans()),
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
)


@given(OUTCOMES, STATES, st.booleans(), st.booleans(), LIMIT)
def test_what_is_pending_comes_back(
    outcome: Outcome, state: "State", varied: bool, sure: bool, check: int
) -> None:
    fd = os.memfd_create("credentials")
    ours, others = CredentialTable(fd), CredentialTable(fd)
    number = ours.encode_pending(outcome, state, varied, sure, check, 0)
    assert is_pending(number) and is_varied(number) == varied
    assert others.decode(number) is None
    assert others.state(number) == state
    assert others.base(number) == outcome.before
    found = others.outcome(number)
    for name in Outcome.__slots__:
        assert getattr(found, name) == getattr(outcome, name)
    assert not check_differs(number, check)
    # Those bits that are left of it where the process has limits.
    assert check_differs(number, check ^ 1 << 36) and check_differs(number, check ^ 1 << 22)
    assert check_differs(number, check ^ 1) == (sure or state[:2] == PLAIN[:2])
    assert others.key() == ours.key()
    os.close(fd)
