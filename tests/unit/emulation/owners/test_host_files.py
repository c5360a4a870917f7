"""What is said of files of the host's kernel that a container has changed."""

import os
import stat

import pytest

from runrootless.emulation.apart import Apart
from runrootless.emulation.owners.host_files import HostFiles
from runrootless.linux.files import Files

pytestmark = pytest.mark.usefixtures("as_an_agent")


@pytest.mark.parametrize("mode", [0o100644, 0o20666, 0o40555])
def test_shown(tmp_path: object, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    monkeypatch.chdir("/proc")
    path = os.path.join(str(tmp_path), "file")
    if stat.S_ISDIR(mode):
        os.mkdir(path, stat.S_IMODE(mode))
    else:
        with open(path, "w"):
            pass
    fd = os.open(path, os.O_PATH)
    status = os.fstat(fd)
    changed = HostFiles(Apart())
    assert changed.mode(status) == status.st_mode
    changed.set_mode(status, 0o106711)
    changed.set_times(status, (1_000_000_001, None))
    changed.set_times(status, (None, -1))
    assert changed.mode(status) == stat.S_IFMT(status.st_mode) | 0o6711
    (change,) = changed.changes.values()
    files = Files()
    assert files.stat(fd) == 0
    before = bytes(files.stat_buffer)
    change.show(files.stat_buffer)
    assert files.mode() == changed.mode(status)
    atime, mtime = (
        int.from_bytes(files.stat_buffer[offset : offset + 8], "little", signed=True)
        for offset in (72, 88)
    )
    assert (atime, mtime) == (1, -1)
    assert files.stat_buffer[80:88] == (1).to_bytes(8, "little")
    assert files.stat_buffer[96:104] == (999_999_999).to_bytes(8, "little")
    # Nothing else than these, and st_ctime.
    after = files.stat_buffer
    kept = [*range(24), *range(28, 72), *range(120, len(before))]
    assert [before[at] for at in kept] == [after[at] for at in kept]


def test_as_statx_shows_it(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc")
    fd = os.open(str(tmp_path), os.O_PATH)
    status = os.fstat(fd)
    changed = HostFiles(Apart())
    changed.set_mode(status, 0o701)
    changed.set_times(status, (2_000_000_003, 4_000_000_005))
    files = Files()
    assert files.statx(fd, 0, 0x7FF) == 0
    (change,) = changed.changes.values()
    change.show_extended(files.statx_buffer)
    data = files.statx_buffer
    assert int.from_bytes(data[28:30], "little") == stat.S_IFDIR | 0o701
    times = [
        (
            int.from_bytes(data[offset : offset + 8], "little"),
            int.from_bytes(data[offset + 8 : offset + 12], "little"),
        )
        for offset in (64, 112)
    ]
    assert times == [(2, 3), (4, 5)]


def test_there_is_an_end(tmp_path: object) -> None:
    changed = HostFiles(Apart())
    status = os.stat(str(tmp_path))
    for inode in range(1024):
        changed.set_mode(os.stat_result((*status[:1], inode, *status[2:])), 0)
    with pytest.raises(OSError, match="No space left"):
        changed.set_mode(os.stat_result((*status[:1], 1 << 30, *status[2:])), 0)
    # Those that are there can be changed again.
    changed.set_mode(os.stat_result((*status[:1], 5, *status[2:])), 0o7)
    assert changed.mode(os.stat_result((*status[:1], 5, *status[2:]))) & 0o7777 == 0o7
