"""Volumes of images that want their mounts elsewhere, or more of them than there is room for."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runrootless.errors import Error
from runrootless.images.config import convert
from runrootless.images.places import clean
from runrootless.images.records import Records
from runrootless.images.streams import Limit
from runrootless.images.volumes import provide
from support.users import AS_ROOT

CONFIG = b'{"architecture": "amd64", "os": "linux"}'

SYMLINKS = {
    "absolute": "{outside}",
    "relative": "../../../../../../../../..{outside}",
    "procfs": "/proc",
    "magic": "/proc/self/cwd",
    "other": "magic/../../root/proc",
    "device": "dev",
    "all": "/",
    "above": "..",
    "loop": "loop",
    "dangling": "/nowhere",
    "one": "data",
    "two": "/one/inner",
    "sys": "real-sys",
}
NAMES = [
    *SYMLINKS,
    *(f"/{name}/x" for name in SYMLINKS),
    *(f"/data/../{name}/y/../z" for name in SYMLINKS),
    *(
        "",
        "/",
        "//",
        ".",
        "..",
        "/../..",
        "/proc",
        "/dev/",
        "/etc/..",
        "/proc/self/../..",
        "/sys/x",
    ),
    *("/etc/resolv.conf", "/etc", "/real-sys", "/nowhere/x", "plain", "../below/it"),
    *("/data", "/data/inner", "/data/", "//data//inner", "/a:b", "/a\nb", "/a\0b", "/\x1b[31m"),
    *(
        "/file",
        "/file/x",
        "/fifo",
        "/null",
        "/" + "n" * 300,
        "/" + "d/" * 2500,
        "/é",
        "/a,b",
        "/a b",
    ),
]
RESOLVE = """
import json, os, sys
os.chroot(sys.argv[1])
os.chdir("/")
json.dump([os.path.realpath(path) for path in json.load(sys.stdin)], sys.stdout)
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    os.makedirs(tmp_path / "bundle" / "rootfs" / "data" / "inner")
    return tmp_path / "bundle"


def mounts_of(bundle: Path) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = convert(CONFIG, str(bundle / "rootfs"), "it").spec["mounts"]
    return mounts


def resolve(rootfs: Path, mounts: list[dict[str, Any]]) -> list[str]:
    """Return where the kernel mounts something, as paths from the root."""
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, rootfs],
        input=json.dumps([mount["destination"] for mount in mounts]),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found


def overlap(one: str, other: str) -> bool:
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return one.startswith(other) or other.startswith(one)


@pytest.mark.skipif(not AS_ROOT, reason="only root may call chroot(2)")
def test_names_that_lead_elsewhere(bundle: Path, tmp_path: Path) -> None:
    """Each volume has a place of its own in the root file system, where no other mount is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    rootfs = bundle / "rootfs"
    for name, target in SYMLINKS.items():
        os.symlink(target.format(outside=outside), rootfs / name)
    (rootfs / "file").write_text("x")
    os.mkfifo(rootfs / "fifo")
    os.mknod(rootfs / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    others = mounts_of(bundle)
    found, notes = provide(str(bundle), NAMES, others, Limit(1 << 20))
    assert os.listdir(outside) == ["file"] and sorted(os.listdir(tmp_path)) == ["bundle", "outside"]
    assert {os.path.realpath(bundle / mount["source"]) for mount in found} == {
        f"{bundle}/volumes/{number}" for number in range(len(found))
    }
    places = resolve(rootfs, found)
    taken = resolve(rootfs, others)
    for number, place in enumerate(places):
        assert not any(overlap(place, other) for other in (*taken, *places[:number]))
    assert {mount["destination"] for mount in found} >= {
        *("/data", "/plain", "/below/it", "/a:b", "/a\nb", "/\x1b[31m", "/é", "/a,b", "/a b"),
    }
    for name in ("/proc", "/etc/..", "procfs", "/magic/x", "/a\0b", "/file", "/fifo", "/null"):
        assert any(f"the volume {name} " in note for note in notes), name
    # Nothing is left out in silence but what is in another volume by its name.
    shown = {mount["destination"] for mount in found}
    told = {clean(name.encode()) for name in NAMES if any(f"volume {name} " in n for n in notes)}
    for name in NAMES:
        path = clean(name.encode())
        assert path in told or any(overlap(f"/{path.decode()}", one) for one in shown), name


def test_more_volumes_than_there_may_be(bundle: Path) -> None:
    with pytest.raises(Error, match="has 1001 volumes"):
        provide(str(bundle), [f"/v{n}" for n in range(1001)], [], Limit(1 << 30))
    assert os.listdir(bundle) == ["rootfs"]


def test_what_is_copied_counts(bundle: Path) -> None:
    """One file may be in any number of volumes, by hard links."""
    data = bundle / "rootfs" / "data"
    (data / "file").write_bytes(bytes(1 << 20))
    for number in range(8):
        (bundle / "rootfs" / f"v{number}").mkdir()
        os.link(data / "file", bundle / "rootfs" / f"v{number}" / "file")
    names = [f"/v{number}" for number in range(8)]
    with pytest.raises(Error, match="--max-size"):
        provide(str(bundle), names, [], Limit(4 << 20))


def test_a_new_directory_is_of_its_parents_group(bundle: Path) -> None:
    """As mkdir(2) has it where the parent is set-group-ID."""
    place = os.open(bundle, os.O_RDONLY)
    parent = os.open(bundle / "rootfs" / "data", os.O_RDONLY)
    before = os.getcwd()
    os.chdir("/proc")
    try:
        records = Records(place, parent)
        records.own(parent, 33, 34)
        os.fchmod(parent, 0o2770)
        records.close()
        found, notes = provide(str(bundle), ["/data/new/one"], [], Limit(1 << 20))
        assert len(found) == 1 and not notes
        for path in ("rootfs/data/new", "rootfs/data/new/one", "volumes/0"):
            made = os.open(bundle / path, os.O_RDONLY)
            records = Records(place, made)
            status = os.fstat(made)
            record = records._ownership.find(made, status.st_mode, status.st_dev, status.st_ino)
            assert record is not None and (record.uid, record.gid) == (0, 34), path
            assert status.st_mode & stat.S_ISGID, path
            records.close()
            os.close(made)
    finally:
        os.chdir(before)
        os.close(parent)
        os.close(place)
