"""What the quick handler of newfstatat(2) decides, and what it leaves to the other one."""

import ctypes
import errno
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from emulators import new_emulator

from runrootless.emulation.call import UNDECIDED
from runrootless.emulation.ownership import ATTRIBUTE
from runrootless.emulation.record import Record, encode
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW

pytestmark = pytest.mark.usefixtures("as_an_agent")

Ask = Callable[..., int | None]

# The kernel's own answer is right.
PASSES = None
# Nobody waits for the answer that there is.
ANSWERED = -errno.EINTR

IDENTIFIER = bytes(8)
# Of the root, wherever the tests run.
PLAIN = b"/etc/passwd"


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Asks about a call of this process, which is none: it does not wait at the listener."""
    listener = os.open(os.devnull, os.O_RDONLY)
    # From where the agent resolves names.
    monkeypatch.chdir("/proc")
    emulator = new_emulator()
    emulator.joined()
    ((_, quick),) = emulator.quick_handlers().items()
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    first = ctypes.addressof(ctypes.c_char.from_buffer(pages))

    def ask_about(
        path: bytes | None, flags: int = 0, directory: int = AT_FDCWD, offset: int = 0
    ) -> int | None:
        text = (path or b"") + b"\0"
        pages[offset : offset + len(text)] = text
        address = 0 if path is None else first + offset
        arguments = (directory & 0xFFFFFFFFFFFFFFFF, address, 0, flags)
        return quick(listener, IDENTIFIER, os.getpid(), *arguments)

    yield ask_about
    os.close(listener)


@pytest.fixture
def recorded(tmp_path: Path) -> bytes:
    """A file that a record says is somebody else's."""
    path = tmp_path / "recorded"
    path.touch()
    os.setxattr(path, ATTRIBUTE, encode(Record(5, 6)))
    return bytes(path)


def test_a_file_without_a_record_passes(ask: Ask) -> None:
    assert ask(PLAIN) is PASSES
    # From what is known of it by now.
    assert ask(PLAIN) is PASSES
    assert ask(PLAIN, AT_SYMLINK_NOFOLLOW) is PASSES


def test_what_is_not_there_passes(ask: Ask, tmp_path: Path) -> None:
    assert ask(bytes(tmp_path / "absent")) is PASSES
    assert ask(b"absent", directory=99999) is PASSES


def test_a_path_that_goes_on_in_the_next_page_is_left(ask: Ask, recorded: bytes) -> None:
    end = mmap.PAGESIZE - len(recorded)
    assert ask(recorded, offset=end) == UNDECIDED
    # With its terminating null byte it still lies in the page.
    assert ask(recorded, offset=end - 1) == ANSWERED


def test_a_file_with_a_record_is_answered(ask: Ask, recorded: bytes) -> None:
    assert ask(recorded) == ANSWERED
    assert ask(recorded) == ANSWERED


def test_a_descriptor(ask: Ask, recorded: bytes) -> None:
    for path, expected in ((PLAIN, PASSES), (recorded, ANSWERED)):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            assert ask(b"", AT_EMPTY_PATH, descriptor) == expected
        finally:
            os.close(descriptor)


def test_a_path_from_a_directory(ask: Ask, recorded: bytes) -> None:
    directory = os.open(os.path.dirname(recorded), os.O_RDONLY)
    try:
        assert ask(b"recorded", directory=directory) == ANSWERED
        assert ask(b"absent", directory=directory) is PASSES
    finally:
        os.close(directory)


def test_a_path_from_the_working_directory(ask: Ask, recorded: bytes) -> None:
    assert ask(os.path.relpath(recorded)) == ANSWERED
    # In a procfs, "self" and the like are not the same for all.
    assert ask(b"absent") == UNDECIDED


@pytest.mark.parametrize("path", [b"/proc/self/comm", b"/dev/fd/0", b"/dev/null"])
def test_what_is_different_for_each_process_is_left(ask: Ask, path: bytes) -> None:
    assert ask(path) == UNDECIDED


def test_arguments_that_take_a_closer_look(ask: Ask) -> None:
    assert ask(None) == UNDECIDED
    assert ask(None, AT_EMPTY_PATH) == UNDECIDED
    assert ask(b"") == UNDECIDED
    assert ask(b"", AT_EMPTY_PATH) == UNDECIDED


def test_a_record_that_is_new(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    assert ask(bytes(path)) == (PASSES if os.getuid() == 0 else ANSWERED)
    os.setxattr(path, ATTRIBUTE, encode(Record(5, 6)))
    assert ask(bytes(path)) == ANSWERED
