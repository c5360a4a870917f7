"""What is kept of the credentials of all processes: shared, bounded, and never half a line."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.emulation.stores import entry_file
from runrootless.emulation.stores.entry_file import UNIT, EntryFile, FullError

TEXTS = st.binary(min_size=1, max_size=5000).map(lambda data: b"c " + data.hex().encode())


def head() -> bytes:
    return b"k head"


def open_file(path: str | Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "entries"


@given(st.lists(st.tuples(TEXTS, st.integers(0, 3)), max_size=8))
def test_every_text_is_there_once(entries: list[tuple[bytes, int]]) -> None:
    fd = os.memfd_create("entries")
    ours, others = EntryFile(fd, head), EntryFile(fd, head)
    places = [ours.place(text, payer) for text, payer in entries]
    assert [others.place(text, 0) for text, _ in reversed(entries)] == places[::-1]
    assert [others.text(place) for place in places] == [text for text, _ in entries]
    assert len(set(places)) == len({text for text, _ in entries})
    if entries:
        assert others.text(0) == b"k head" and 0 not in places
    starts = {0, *places}
    for place in range(os.fstat(fd).st_size // UNIT + 2):
        assert (others.text(place) is not None) == (bool(entries) and place in starts)
    os.close(fd)


def test_thousands_of_lines(path: Path) -> None:
    ours = EntryFile(open_file(path), head)
    places = [ours.place(b"c %d" % number, 0) for number in range(5000)]
    again = EntryFile(open_file(path), head)
    assert [again.place(b"c %d" % number, 7) for number in range(5000)] == places


def test_threads_and_processes_agree(path: Path) -> None:
    """Eight writers of the same texts, of two processes, each text once."""
    program = (
        "import os, sys\n"
        "from runrootless.emulation.stores.entry_file import EntryFile\n"
        "file = EntryFile(os.open(sys.argv[1], os.O_RDWR | os.O_APPEND), lambda: b'k head')\n"
        "print([file.place(b'c %d' % number, 0) for number in range(300)])\n"
    )
    file = EntryFile(open_file(path), head)
    found: list[list[int]] = []

    def write() -> None:
        found.append([file.place(b"c %d" % number, 0) for number in range(300)])

    other = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE)
    threads = [threading.Thread(target=write) for _ in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    printed, _ = other.communicate()
    assert other.returncode == 0
    assert {str(places) for places in found} == {printed.decode().strip()}


def test_one_user_does_not_take_anothers_room(path: Path) -> None:
    file = EntryFile(open_file(path), head)
    for number in range(entry_file.USER_LINES):
        file.place(b"l %d" % number, 33)
    with pytest.raises(FullError) as caught:
        file.place(b"l one more", 33)
    assert caught.value.errno == errno.ENOMEM
    assert "user 33" in caught.value.reason
    # What is there already, another class, other users; and who comes later counts the same.
    for again in (file, EntryFile(open_file(path), head)):
        again.place(b"l 7", 33)
        again.place(b"c of his own", 33)
        again.place(b"l one more", 34)
        again.place(b"l of root", 0)
        with pytest.raises(FullError):
            again.place(b"l another one", 33)


def test_a_user_pays_by_size_as_well(path: Path) -> None:
    file = EntryFile(open_file(path), head)
    half = b"x" * (entry_file.USER_SHARE // 2)
    file.place(b"c " + half, 33)
    with pytest.raises(FullError):
        file.place(b"c y" + half, 33)
    file.place(b"c y" + half, 34)


def test_root_leaves_room_for_users(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_file, "SIZE_LIMIT", 1 << 12)
    monkeypatch.setattr(entry_file, "ROOT_SHARE", 3 << 10)
    file = EntryFile(open_file(path), head)
    with pytest.raises(FullError, match="Cannot allocate"):
        for number in range(1000):
            file.place(b"c %d" % number, 0)
    file.place(b"c of a user", 33)
    with pytest.raises(FullError) as caught:
        for number in range(1000):
            file.place(b"c of %d" % number, 1000 + number)
    assert "are used up" in caught.value.reason
    assert os.path.getsize(path) <= 1 << 12


def test_half_a_line_is_taken_away(path: Path) -> None:
    """As one whose writer was killed in the midst of it."""
    file = EntryFile(open_file(path), head)
    place = file.place(b"c whole", 0)
    size = os.path.getsize(path)
    with open(path, "ab") as other:
        other.write(b"c hal")
    again = EntryFile(open_file(path), head)
    assert again.text(size // UNIT) is None
    assert again.place(b"c whole", 0) == file.place(b"c whole", 0) == place
    assert os.path.getsize(path) == size
    assert again.text(again.place(b"c next", 0)) == b"c next"


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[int]:
    """A process with a tmpfs of one page on ``tmp_path``, which nobody else sees there."""
    if os.geteuid():
        pytest.skip("only root can mount a file system")
    script = f"mount -t tmpfs -o size=4k tmpfs {tmp_path} && echo && exec cat"
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin and process.stdout and process.stdout.readline() == b"\n"
    yield process.pid
    process.communicate()


def test_a_full_disk(namespace: int, tmp_path: Path) -> None:
    path = Path(f"/proc/{namespace}/root{tmp_path}/entries")
    file = EntryFile(open_file(path), head)
    places: list[int] = []
    with pytest.raises(FullError) as caught:
        while True:
            places.append(file.place(b"c %d %b" % (len(places), b"x" * 200), 0))
    assert caught.value.errno == errno.ENOMEM
    assert caught.value.reason == os.strerror(errno.ENOSPC)
    again = EntryFile(open_file(path), head)
    for reader in (file, again):
        assert [reader.place(reader.text(place) or b"", 0) for place in places] == places
    assert path.read_bytes().endswith(b"\n")
    enter = ["nsenter", f"--target={namespace}", "--mount"]
    subprocess.run([*enter, "mount", "-o", "remount,size=64k", tmp_path], check=True)
    assert again.text(file.place(b"c %d %b" % (len(places), b"x" * 200), 0)) is not None
