"""Layers of generated trees and changes, laid upon each other by real root's umoci."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runrootless.emulation.stores.record import Record, encode
from runrootless.images import changes, layer, new_image, snapshot, write_layout
from runrootless.images.new_image import LAYER, Blob, NewImage
from runrootless.images.read_tree import Tree
from support.snapshots import decode_resource
from support.users import AS_ROOT

ATTRIBUTE = "user.rootlesscontainers"
# One that is a directory, and names that lie around a slash in the order of bytes.
NAMES = ["a", "b", "d", "d-", "d!", "d0", "é", "long" * 30]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
TIMES = st.sampled_from([1_000_000_000_000_000_000, 1_600_000_000_123_456_789, -1_500_000_000])

# What may be done to a tree; what is impossible is passed over.
OPERATIONS = st.one_of(
    st.tuples(st.just("file"), PATHS, st.binary(max_size=3), TIMES),
    st.tuples(st.just("rewrite"), PATHS, st.binary(max_size=3), TIMES),
    st.tuples(st.just("directory"), PATHS),
    st.tuples(st.just("link"), PATHS, PATHS),
    st.tuples(st.just("symlink"), PATHS, st.sampled_from(NAMES)),
    st.tuples(st.just("fifo"), PATHS),
    st.tuples(st.just("break"), PATHS),
    st.tuples(st.just("remove"), PATHS),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("mode"), PATHS, st.sampled_from([0, 0o644, 0o755, 0o1777, 0o4711])),
    st.tuples(st.just("owner"), PATHS, st.integers(0, 4294967294), st.integers(0, 70000)),
    st.tuples(st.just("attribute"), PATHS, st.sampled_from([b"y", b"x", b"\0\n="])),
    st.tuples(st.just("time"), PATHS, TIMES),
)
Operation = tuple[Any, ...]


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def perform(root: Path, operation: Operation) -> None:
    kind, path = operation[0], root / operation[1]
    try:
        if kind in ("file", "directory", "symlink", "fifo", "link"):
            path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "file":
            remove(path)
            path.write_bytes(operation[2])
            os.utime(path, ns=(operation[3], operation[3]))
        elif kind == "rewrite" and not path.is_symlink() and path.is_file():
            path.write_bytes(operation[2])
            os.utime(path, ns=(operation[3], operation[3]))
        elif kind == "directory":
            remove(path)
            path.mkdir()
        elif kind == "link":
            remove(path)
            os.link(root / operation[2], path, follow_symlinks=False)
        elif kind == "symlink":
            remove(path)
            path.symlink_to(operation[2])
        elif kind == "fifo":
            remove(path)
            os.mkfifo(path)
        elif kind == "break" and not path.is_symlink() and path.is_file():
            shutil.copy2(path, root / "copy")
            os.rename(root / "copy", path)
        elif kind == "remove":
            remove(path)
        elif kind == "rename":
            os.rename(path, root / operation[2])
        elif kind == "mode" and not path.is_symlink():
            path.chmod(operation[2])
        elif kind == "owner":
            record = encode(Record(*operation[2:]))
            if record:
                os.setxattr(path, ATTRIBUTE, record, follow_symlinks=False)
        elif kind == "attribute":
            os.setxattr(path, "user.x", operation[2], follow_symlinks=False)
        elif kind == "time":
            os.utime(path, ns=(operation[2], operation[2]), follow_symlinks=False)
    except OSError:
        # There is nothing, or something else, or nothing such can be there.
        pass


def look(root: str, recorded: bool) -> dict[str, object]:
    """Return what is in a tree: owners by records, or as they are."""
    found: dict[str, object] = {}
    names: dict[int, list[str]] = {}
    paths = [root]
    for directory, below, files in os.walk(root):
        paths += [os.path.join(directory, name) for name in below + files]
    for path in sorted(paths):
        status = os.lstat(path)
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
        owner = (status.st_uid, status.st_gid)
        if recorded:
            owner = decode_resource(attributes.pop(ATTRIBUTE, b""))
        name = os.path.relpath(path, root)
        content = target = b""
        if os.path.islink(path):
            target = os.fsencode(os.readlink(path))
        elif os.path.isfile(path):
            content = Path(path).read_bytes()
        if not os.path.isdir(path) or os.path.islink(path):
            names.setdefault(status.st_ino, []).append(name)
        mode, mtime = status.st_mode, status.st_mtime_ns
        found[name] = (mode, *owner, mtime, attributes, content, target)
    return {**found, "links": sorted(tuple(group) for group in names.values())}


class Layers:
    """An image in a layout, of one layer after the other."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.blobs: list[Blob] = []
        self.files: list[int] = []
        self.contents: dict[bytes, bytes] = {}

    def add(self, tree: Tree, found: changes.Changes | None) -> str:
        file = os.open(self.directory, os.O_TMPFILE | os.O_RDWR)
        made = layer.write_layer(file, "it", tree, found, None)
        self.files.append(file)
        self.blobs.append(
            Blob(made["digest"], made["diff_id"], made["size"], LAYER, fd=file),
        )
        return str(made["diff_id"])

    def unpack(self) -> str:
        config: dict[str, Any] = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [blob.diff_id for blob in self.blobs]},
        }
        path = f"{self.directory}/layout"
        write_layout.write(path, "x", NewImage(config, self.blobs))
        bundle = f"{self.directory}/bundle"
        done = subprocess.run(
            ["umoci", "unpack", "--image", f"{path}:x", bundle], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return f"{bundle}/rootfs"

    def close(self) -> None:
        for file in self.files:
            os.close(file)


@pytest.mark.skipif(not AS_ROOT, reason="only root's umoci unpacks all of an image")
@pytest.mark.usefixtures("in_proc", "as_an_agent")
@settings(max_examples=40)
@given(st.lists(OPERATIONS, max_size=12), st.lists(OPERATIONS, max_size=8))
def test_layers_upon_each_other_make_the_tree(
    first: list[Operation], second: list[Operation]
) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        bundle = f"{directory}/b"
        root = Path(bundle) / "rootfs"
        root.mkdir(parents=True)
        layers = Layers(directory)
        for operation in first:
            perform(root, operation)
        layers.add(Tree(str(root), []), None)
        snapshot.write(bundle)
        contents = {
            os.fsencode(os.path.relpath(path, root)): hashlib.sha256(path.read_bytes()).digest()
            for path in root.rglob("*")
            if path.is_file() and not path.is_symlink()
        }
        for operation in second:
            perform(root, operation)

        def known_contents(paths: Any) -> dict[bytes, bytes]:
            return {path: contents[path] for path in paths}

        found = changes.find(Tree(str(root), []), snapshot.read(bundle), known_contents)
        diff_id = layers.add(Tree(str(root), []), found)
        assert layers.add(Tree(str(root), []), found) == diff_id
        layers.blobs.pop()
        ours = look(str(root), True)
        assert look(layers.unpack(), False) == ours
        # What is unpacked now has not changed.
        snapshot.write(bundle)
        again = changes.find(Tree(str(root), []), snapshot.read(bundle), known_contents)
        assert not again.changed and not again.gone
        layers.close()


def find(bundle: str, contents: dict[bytes, bytes]) -> tuple[list[bytes], list[bytes]]:
    tree = Tree(f"{bundle}/rootfs", [])
    found = changes.find(tree, snapshot.read(bundle), lambda paths: contents)
    return sorted(found.changed), sorted(found.gone)


@pytest.mark.usefixtures("in_proc", "as_an_agent")
def test_content_that_only_the_layers_can_tell(tmp_path: Path) -> None:
    root = tmp_path / "rootfs"
    root.mkdir()
    for name in ("same", "other", "unknown"):
        (root / name).write_bytes(b"one")
        os.utime(root / name, ns=(10**18, 10**18))
    os.utime(root, ns=(10**18, 10**18))
    snapshot.write(str(tmp_path))
    path = tmp_path / "snapshot"
    # As it is of files that have been there for some time.
    known = list(snapshot.read(str(tmp_path)))
    data = path.read_bytes()
    for one in known:
        if one.content:
            head = snapshot._HEAD.pack(
                *(one.mode, one.uid, one.gid, one.device, one.size, one.mtime, one.inode),
                *(12345, one.links, len(one.path), 0, 0, 0),
            )
            start = data.index(one.path + one.content) - snapshot._HEAD.size
            end = start + snapshot._HEAD.size + len(one.path) + len(one.content)
            data = data[:start] + head + one.path + data[end:]
    path.write_bytes(data)
    digest = hashlib.sha256(b"one").digest()
    contents = {b"same": digest, b"other": hashlib.sha256(b"two").digest()}
    assert find(str(tmp_path), contents) == ([b"other", b"unknown"], [])


@pytest.mark.usefixtures("in_proc", "as_an_agent")
def test_the_order_of_slashes(tmp_path: Path) -> None:
    root = tmp_path / "rootfs"
    for name in ("d", "d-", "d!"):
        (root / name).mkdir(parents=True)
        (root / name / "f").write_bytes(b"")
    snapshot.write(str(tmp_path))
    paths = [one.path for one in snapshot.read(str(tmp_path))]
    assert paths == [b"", b"d", b"d/f", b"d!", b"d!/f", b"d-", b"d-/f"]
    shutil.rmtree(root / "d")
    changed, gone = find(str(tmp_path), {})
    assert gone == [b"d"] and changed == [b""]


def test_json_is_the_same_for_the_same() -> None:
    value = {"b": [1, {"z": None, "a": "é"}], "a": True}
    assert json.loads(new_image.encode(value)) == value
    assert new_image.encode(dict(reversed(value.items()))) == new_image.encode(value)
