"""What newfstatat(2) is let through for at once, and what its handler has to see."""

import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from runrootless.emulation.attribute_store import AttributeStore
from runrootless.emulation.credential_table import CredentialTable
from runrootless.emulation.emulator import Emulator
from runrootless.emulation.owner_store import OwnerStore
from runrootless.emulation.ownership import ATTRIBUTE
from runrootless.emulation.record import Record, encode
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW

Passes = Callable[..., bool]

# struct seccomp_notif with struct seccomp_data in it.
NOTIFICATION = struct.Struct("=QIIiIQ6Q")
# Of the root, wherever the tests run.
PLAIN = b"/etc/passwd"


class NoViews:
    varied = False

    def open_outside(self, pid: int, path: str) -> int:
        raise NotImplementedError


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Tells whether a call of this process is let through."""
    # From where the agent resolves names.
    monkeypatch.chdir("/proc")
    emulator = Emulator(CredentialTable(-1), OwnerStore(), AttributeStore(), NoViews())
    emulator.joined(os.getpid())
    ((_, function),) = emulator.passes().items()

    def ask(path: bytes | None, flags: int = 0, directory: int = AT_FDCWD) -> bool:
        text = None if path is None else ctypes.create_string_buffer(path)
        address = 0 if text is None else ctypes.addressof(text)
        arguments = (directory & 0xFFFFFFFFFFFFFFFF, address, 0, flags, 0, 0)
        return function(NOTIFICATION.pack(1, os.getpid(), 0, 0, 0, 0, *arguments))

    return ask


@pytest.fixture
def recorded(tmp_path: Path) -> bytes:
    """A file that a record says is somebody else's."""
    path = tmp_path / "recorded"
    path.touch()
    os.setxattr(path, ATTRIBUTE, encode(Record(5, 6)))
    return bytes(path)


def test_a_file_without_a_record_passes(passes: Passes) -> None:
    assert passes(PLAIN)
    # From what is known of it by now.
    assert passes(PLAIN)
    assert passes(PLAIN, AT_SYMLINK_NOFOLLOW)


def test_what_is_not_there_passes(passes: Passes, tmp_path: Path) -> None:
    assert passes(bytes(tmp_path / "absent"))
    assert passes(b"absent")
    assert passes(b"absent", directory=99999)


def test_a_file_with_a_record_does_not(passes: Passes, recorded: bytes) -> None:
    assert not passes(recorded)
    assert not passes(recorded)


def test_a_descriptor(passes: Passes, recorded: bytes) -> None:
    for path, expected in ((PLAIN, True), (recorded, False)):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            assert passes(b"", AT_EMPTY_PATH, descriptor) == expected
        finally:
            os.close(descriptor)


def test_a_path_from_a_directory(passes: Passes, recorded: bytes) -> None:
    directory = os.open(os.path.dirname(recorded), os.O_RDONLY)
    try:
        assert not passes(b"recorded", directory=directory)
        assert passes(b"absent", directory=directory)
    finally:
        os.close(directory)


def test_a_path_from_the_working_directory(passes: Passes, recorded: bytes) -> None:
    assert passes(b"absent")
    assert not passes(os.path.relpath(recorded))


@pytest.mark.parametrize("path", [b"/proc/self/comm", b"/dev/fd/0", b"/dev/null"])
def test_what_is_different_for_each_process_does_not(passes: Passes, path: bytes) -> None:
    assert not passes(path)


def test_arguments_that_take_a_closer_look(passes: Passes) -> None:
    assert not passes(None)
    assert not passes(None, AT_EMPTY_PATH)
    assert not passes(b"")
    assert not passes(b"", AT_EMPTY_PATH)


def test_a_record_that_is_new(passes: Passes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    before = passes(bytes(path))
    assert before == (os.getuid() == 0)
    os.setxattr(path, ATTRIBUTE, encode(Record(5, 6)))
    assert not passes(bytes(path))
