"""Records that are made of what fuse-overlayfs and containers/storage keep."""

import os
import stat
from pathlib import Path

import pytest

from runrootless.emulation.owners.ownership import ATTRIBUTE
from runrootless.emulation.stores.record import Record, decode, encode
from runrootless.integrations.override_stat import MARK, THEIRS, parse, restore


@pytest.mark.parametrize(
    ("text", "record", "mode"),
    [
        (b"0:0:0755", Record(), 0o755),
        (b"1000:33:4711:file", Record(1000, 33), 0o4711),
        (b"4294967294:5:40755:dir", Record(4294967294, 5), 0o755),
        (b"1:2:0660:block-259-70000", Record(1, 2, stat.S_IFBLK, os.makedev(259, 70000)), 0o660),
        (b"0:5:0620:char-4-1", Record(0, 5, stat.S_IFCHR, os.makedev(4, 1)), 0o620),
    ],
)
def test_well_formed(text: bytes, record: Record, mode: int) -> None:
    assert parse(text) == (record, mode)


@pytest.mark.parametrize(
    "text",
    [b"", b"0:0", b"-1:0:755", b"0:4294967295:755", b"0:0:9", b"0:0:755:char-1", b"\xff:0:0"]
    + [b"0:0:755:char-1-2-3", b"0:0:755:file:more", b"0:0:755:char--1--1"],
)
def test_malformed(text: bytes) -> None:
    assert parse(text) is None


def test_a_tree(tmp_path: Path) -> None:
    tree = tmp_path / "rootfs"
    (tree / "closed").mkdir(parents=True)
    files = {
        ".": b"0:0:0755",
        "closed": b"5:6:0000",
        "closed/in": b"7:8:6755",
        "node": b"0:0:0600:char-1-3",
        "given": b"9:9:0600",
        "bad": b"what",
    }
    (tree / "link").symlink_to("/etc/passwd")
    for name, value in files.items():
        path = tree / name
        if not path.is_dir():
            path.write_bytes(b"")
        os.setxattr(path, THEIRS, value)
        path.chmod(0o700)
    # Changed by a container of ours.
    os.setxattr(tree / "given", ATTRIBUTE, encode(Record(1, 1)))
    assert restore(str(tree))
    assert not (tree / "closed").stat().st_mode & 0o777
    (tree / "closed").chmod(0o700)
    found = {
        name: decode(os.getxattr(tree / name, ATTRIBUTE))
        for name in files
        if os.fsdecode(ATTRIBUTE) in os.listxattr(tree / name)
    }
    assert found == {
        "closed": Record(5, 6),
        "closed/in": Record(7, 8),
        "node": Record(0, 0, stat.S_IFCHR, os.makedev(1, 3)),
        "given": Record(1, 1),
    }
    assert stat.S_IMODE((tree / "closed/in").stat().st_mode) == 0o6755
    assert stat.S_IMODE((tree / "bad").stat().st_mode) == 0o700
    # Once: later changes stay.
    assert MARK in os.listxattr(tree)
    (tree / "node").chmod(0o640)
    assert restore(str(tree))
    assert stat.S_IMODE((tree / "node").stat().st_mode) == 0o640


def test_any_other_tree(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    os.setxattr(tmp_path / "file", THEIRS, b"1:1:0600")
    assert not restore(str(tmp_path))
    assert os.listxattr(tmp_path / "file") == [THEIRS]
