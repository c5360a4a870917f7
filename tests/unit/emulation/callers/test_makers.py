"""Whose pipes, sockets and memory files are."""

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from runrootless.emulation.apart import Apart
from runrootless.emulation.callers.credentials import ROOT, Credentials, initial
from runrootless.emulation.callers.makers import Makers

ALICE, BOB = initial(1000, 1000, ()), initial(1001, 1002, ())

pytestmark = pytest.mark.usefixtures("as_an_agent")


@pytest.fixture
def makers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Makers]:
    monkeypatch.chdir("/proc")
    makers = Makers(Apart())
    makers.look()
    yield makers


def owner(makers: Makers, fd: int, holder: Credentials) -> tuple[int, int]:
    status = os.fstat(fd)
    assert status.st_dev in makers.devices
    return makers.owner(status.st_dev, status.st_ino, holder)


MAKE: dict[str, Callable[[], int]] = {
    "pipe": lambda: os.pipe()[0],
    "socket": lambda: socket.socket().detach(),
    "memory file": lambda: os.memfd_create("name"),
    "sealable memory file": lambda: os.memfd_create("pipe:[1]", os.MFD_ALLOW_SEALING),
}


@pytest.mark.parametrize("kind", MAKE)
def test_what_is_not_known_is_its_holders(makers: Makers, kind: str) -> None:
    fd = MAKE[kind]()
    assert owner(makers, fd, ALICE) == (1000, 1000)
    assert owner(makers, fd, ROOT) == (0, 0)


@pytest.mark.parametrize("kind", MAKE)
def test_the_first_note_counts(makers: Makers, kind: str) -> None:
    fd = MAKE[kind]()
    makers.note_all(os.getpid(), ALICE)
    makers.note_all(os.getpid(), BOB)
    assert owner(makers, fd, ROOT) == (1000, 1000)
    later = MAKE[kind]()
    assert owner(makers, later, BOB) == (1001, 1002)


@pytest.mark.parametrize("kind", MAKE)
def test_what_is_given_away(makers: Makers, kind: str) -> None:
    fd = MAKE[kind]()
    status = os.fstat(fd)
    for user in ((0, 0), (5, 6), (1000, 7)):
        makers.give(status.st_dev, status.st_ino, user)
        makers.note(os.getpid(), [b"%d" % fd], BOB)
        assert owner(makers, fd, BOB) == user


def test_by_the_directory_of_a_procfs(makers: Makers) -> None:
    fd = MAKE["pipe"]()
    directory = os.open("self/fd", os.O_PATH)
    makers.note_at(directory, b"%d" % fd, ALICE)
    makers.note_at(directory, b"no number", ALICE)
    assert owner(makers, fd, ROOT) == (1000, 1000)


def test_what_is_not_open_and_who_is_gone(makers: Makers) -> None:
    makers.note(os.getpid(), [b"-1", b"123456789"], ALICE)
    makers.note_all(1 << 22, ALICE)


def test_nobody_has_others_files_forgotten(makers: Makers) -> None:
    roots, own = MAKE["pipe"](), MAKE["pipe"]()
    device = os.fstat(roots).st_dev
    makers.note(os.getpid(), [b"%d" % roots], ROOT)
    makers.note(os.getpid(), [b"%d" % own], BOB)
    for inode in range(1 << 40, (1 << 40) + 10_000):
        makers.give(device, inode, (1000, 1000))
    for user in range(2000, 2500):
        makers.give(device, 1 << 41, (user, 0))
    assert owner(makers, roots, ALICE) == (0, 0)
    # The oldest of a user's own go first, and the users of whom nothing was noted for long.
    assert makers.owner(device, 1 << 40, ALICE) == (1000, 1000)
    assert makers.owner(device, 1 << 40, ROOT) == (0, 0)
    assert makers.owner(device, 1 << 41, ROOT) == (2499, 0)


def test_the_next_worker_knows_them(makers: Makers) -> None:
    """In the same order, and within the same bounds."""
    first = os.pipe()[0]
    makers.note(os.getpid(), [b"%d" % first], ALICE)
    second = os.pipe()[0]
    makers.note(os.getpid(), [b"%d" % second], ALICE)
    place = os.fstat(second)
    makers.give(place.st_dev, place.st_ino, (7, 8))
    for number in range(300):
        makers.give(place.st_dev, 1 << 40 | number, (10000 + number, 0))
    answers: list[tuple[int, int]] = []
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # What it has in memory is that of its predecessor's beginning: nothing.
            other = Makers(makers._apart)
            other.kept = makers.kept
            other.look()
            other.take_over()
            answers = [other.owner(place.st_dev, 1 << 40 | n, ALICE) for n in range(300)]
            given = [answer for answer in answers if answer[0] >= 10000]
            code = 0 if given == [(10000 + n, 0) for n in range(300)][-len(given) :] else 2
            code = code or (3 if len(given) > 256 or len(given) < 250 else 0)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
