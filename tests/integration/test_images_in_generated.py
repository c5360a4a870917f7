"""Layers that hypothesis makes up: as umoci unpacks them as real root, refused where it fails."""

import os
import shutil
import stat
import subprocess
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runrootless.emulation.owners.ownership import ATTRIBUTE
from runrootless.emulation.stores.owner_store import OwnerStore
from runrootless.emulation.stores.record import NOTHING, Record, decode
from runrootless.linux.files import Files
from support.containers import COMMAND
from support.layers import File, Layout, whiteout
from support.trees import Trees
from support.users import AS_ROOT, Unprivileged

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="the oracle is umoci as real root")

EXAMPLES = 20

names = st.sampled_from(["a", "b", "c"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
targets = st.one_of(paths, paths.map("/{}".format), paths.map("../{}".format), st.just(".."))
ids = st.sampled_from([0, 0, 1, 33, 65534, 4294967294])
modes = st.sampled_from([0o644, 0o755, 0o4755, 0o2755, 0o1777, 0, 0o111])
attributes = st.sampled_from([{}, {}, {"user.x": b"1"}, {"trusted.x": b"2"}])


@st.composite
def entries(draw: st.DrawFn) -> File:
    kind = draw(
        st.sampled_from(
            ["file", "file", "directory", "directory", "symlink", "link", "fifo", "character"]
            + ["block", "whiteout", "opaque"]
        )
    )
    path = draw(paths)
    if kind == "whiteout":
        return whiteout(path)
    if kind == "opaque":
        return File(f"{path}/.wh..wh..opq")
    about: dict[str, Any] = {"mode": draw(modes), "uid": draw(ids), "gid": draw(ids)}
    about["mtime"] = draw(st.integers(0, 2_000_000_000))
    if kind == "file":
        about["content"] = draw(st.binary(max_size=20))
    if kind in ("file", "directory"):
        about["xattrs"] = draw(attributes)
    if kind == "symlink":
        about["link"] = draw(targets)
    if kind == "link":
        about = {"link": draw(paths)}
    if kind in ("character", "block"):
        about["device"] = draw(st.sampled_from([(1, 3), (8, 0), (511, 1048575)]))
    return File(path, kind, **about)


images = st.lists(st.lists(entries(), min_size=1, max_size=8), min_size=1, max_size=3)


class Records:
    """Reads what is kept beside a root file system, as real root."""

    def __init__(self, bundle: str) -> None:
        self._store = OwnerStore()
        self._device = os.stat(f"{bundle}/rootfs").st_dev
        self._fd = -1
        if os.path.exists(f"{bundle}/.rootfs.ownership"):
            self._fd = os.open(f"{bundle}/.rootfs.ownership", os.O_RDWR)
            self._store.use(self._fd)
        self._store.open(self._device)

    def of(self, path: str, status: os.stat_result) -> Record:
        try:
            return decode(os.getxattr(path, ATTRIBUTE, follow_symlinks=False))
        except OSError:
            pass
        found = self._store.find(status.st_dev, status.st_ino)
        file = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            if found is None or found[0] != Files().birth_time(file):
                return NOTHING
        finally:
            os.close(file)
        return found[1]

    def close(self) -> None:
        for fd in self._store.descriptors():
            os.close(fd)


def listing(root: str, records: Records | None) -> dict[str, object]:
    """Return what the files in a tree are, by their names."""
    found: dict[str, object] = {}
    inodes: dict[int, str] = {}
    for directory, directories, files in os.walk(root):
        directories.sort()
        for name in sorted([".", *files, *directories]):
            path = os.path.normpath(os.path.join(directory, name))
            s = os.lstat(path)
            kind, uid, gid, device = stat.S_IFMT(s.st_mode), s.st_uid, s.st_gid, s.st_rdev
            if records is not None:
                record = records.of(path, s)
                uid, gid = record.uid, record.gid
                kind, device = record.device_type or kind, record.device or device
            content: object = ""
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    content = file.read()
            elif kind == stat.S_IFLNK:
                content = os.readlink(path)
            shown = os.path.relpath(path, root)
            about: list[object] = [oct(kind | stat.S_IMODE(s.st_mode)), uid, gid, content]
            if kind != stat.S_IFDIR:
                # umoci gives a directory in which it makes another one without being told to
                # the time of that.
                about += [s.st_mtime_ns, s.st_nlink, inodes.setdefault(s.st_ino, shown), device]
            values = {
                key.removeprefix("user.runrootless."): os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
                if key != ATTRIBUTE.decode()
            }
            found[shown] = (*about, values)
    return found


@pytest.fixture(scope="module")
def place(trees: Trees) -> str:
    return trees.new_directory("generated", for_user=True)


@settings(max_examples=EXAMPLES)
# A directory on the way has the group of its parent.
@example(layers=[[File("a", "directory", mode=0o2755, gid=33), File("a/b/c", "directory")]])
@given(layers=images)
def test_generated_layers(
    layers: list[list[File]], place: str, session_user: Unprivileged, trees: Trees
) -> None:
    for name in os.listdir(place):
        shutil.rmtree(f"{place}/{name}")
    layout = Layout(f"{place}/layout")
    layout.add("image", layers, how="none")
    oracle = subprocess.run(
        ["umoci", "unpack", "--image", f"{place}/layout:image", f"{place}/oracle"],
        capture_output=True,
        text=True,
    )
    done = session_user.run([COMMAND, "bundle", "--quiet", f"oci:{place}/layout", f"{place}/ours"])
    said = f"{oracle.stderr}\n{done}"
    if oracle.returncode:
        assert done.returncode == 1, said
        return
    assert done.returncode == 0, said
    records = Records(f"{place}/ours")
    found = listing(f"{place}/ours/rootfs", records)
    records.close()
    assert found == listing(f"{place}/oracle/rootfs", None)
