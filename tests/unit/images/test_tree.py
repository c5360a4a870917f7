"""Walking and removing directories that somebody else changes meanwhile."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from runrootless.images import tree
from support.mounts import unmount
from support.users import AS_ROOT


def make(path: Path) -> tuple[Path, Path]:
    """Make a tree, and a directory beside it that others may write to; return both."""
    ours, beside = path / "ours", path / "beside"
    (ours / "a" / "b" / "c").mkdir(parents=True)
    (beside / "precious").mkdir(parents=True)
    (beside / "precious" / "canary").write_text("here")
    return ours, beside


def test_a_directory_that_is_moved_leads_nowhere(tmp_path: Path) -> None:
    ours, beside = make(tmp_path)
    left: list[int] = []

    def leave(directory: int, inode: int) -> None:
        if not left:
            os.rename(ours / "a" / "b", beside / "b")
        left.append(os.fstat(directory).st_ino)

    root = os.open(ours, os.O_RDONLY)
    with pytest.raises(OSError) as caught:
        tree.leave_directories(root, leave)
    os.close(root)
    assert caught.value.errno == errno.ESTALE
    assert os.stat(beside).st_ino not in left


def test_nothing_is_removed_where_a_directory_was_moved_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, beside = make(tmp_path)
    remove_files = tree._remove_files

    def move(directory: int) -> list[bytes]:
        found = remove_files(directory)
        if not found:
            os.rename(ours / "a" / "b", beside / "b")
        return found

    monkeypatch.setattr(tree, "_remove_files", move)
    parent = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError) as caught:
        tree.remove("ours", parent)
    os.close(parent)
    assert caught.value.errno == errno.ESTALE
    assert (beside / "precious" / "canary").read_text() == "here"


@pytest.mark.skipif(not AS_ROOT, reason="only root mounts")
@pytest.mark.parametrize("options", [["-t", "tmpfs", "none"], ["--bind", "beside"]])
@pytest.mark.parametrize("place", ["", "a/b"])
def test_what_is_mounted_stays(tmp_path: Path, options: list[str], place: str) -> None:
    ours, beside = make(tmp_path)
    at = ours / place
    subprocess.run(["mount", *options, at], cwd=tmp_path, check=True)
    try:
        (at / "file").write_text("there")
        parent = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(OSError) as caught:
            tree.remove("ours", parent)
        os.close(parent)
        assert caught.value.errno == errno.EBUSY
        assert (at / "file").read_text() == "there"
    finally:
        unmount(str(at))
    assert (beside / "precious" / "canary").read_text() == "here"
