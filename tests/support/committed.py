"""Bundles that were made of an image, images that were made of bundles, and what is in them."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from support.bundles import Bundle
from support.containers import Runrootless
from support.images import File, busybox_layer
from support.oracle import in_chroot
from support.processes import Result
from support.trees import Trees
from support.users import Unprivileged

# Prints what all files are, as whoever executes it sees them; run with the tree as its root.
LOOK = r"""
import hashlib, json, os, stat
top = os.lstat("/")
def look(path):
    s = os.lstat(path)
    regular = stat.S_ISREG(s.st_mode)
    device = stat.S_ISCHR(s.st_mode) or stat.S_ISBLK(s.st_mode)
    found = {
        "type": stat.S_IFMT(s.st_mode), "mode": stat.S_IMODE(s.st_mode),
        "uid": s.st_uid, "gid": s.st_gid, "mtime": s.st_mtime_ns,
        "device": s.st_rdev if device else 0, "size": s.st_size if regular else 0,
        "inode": s.st_ino if s.st_nlink > 1 and not stat.S_ISDIR(s.st_mode) else 0,
        "target": os.readlink(path) if stat.S_ISLNK(s.st_mode) else "",
        "content": "",
    }
    if regular:
        with open(path, "rb") as file:
            found["content"] = hashlib.sha256(file.read()).hexdigest()
    found["attributes"] = {
        name: os.getxattr(path, name, follow_symlinks=False).hex()
        for name in sorted(os.listxattr(path, follow_symlinks=False))
    }
    return found
tree = {}
for directory, names, files in os.walk("/"):
    names[:] = [
        name for name in names
        if directory != "/" or name not in ("proc", "sys", "dev")
    ]
    tree[directory] = look(directory)
    for name in files + [n for n in names if os.path.islink(os.path.join(directory, n))]:
        path = os.path.join(directory, name)
        if os.lstat(path).st_dev == top.st_dev:
            tree[path] = look(path)
print(json.dumps(tree))
"""

Seen = dict[str, dict[str, Any]]

SOCKET = 0o140000


def seen(result: Result) -> Seen:
    """Return what ``LOOK`` has printed: sockets left out, inode numbers made comparable."""
    tree: Seen = json.loads(result.check().stdout.splitlines()[-1])
    tree = {path: entry for path, entry in tree.items() if entry["type"] != SOCKET}
    names: dict[int, list[str]] = {}
    for path in sorted(tree):
        names.setdefault(tree[path]["inode"], []).append(path)
    for path, entry in tree.items():
        inode = entry.pop("inode")
        # Links from outside of the tree do not count.
        entry["links"] = names[inode] if inode and len(names[inode]) > 1 else [path]
    return tree


def seen_in_chroot(root: str) -> Seen:
    """Return what real root sees in a tree."""
    return seen(in_chroot(root, ["python3", "-c", LOOK]))


def differences(expected: Seen, actual: Seen, but: Iterable[str] = ()) -> list[str]:
    """Return a line for each difference, but in those members of entries."""
    found = []
    for path in sorted(expected.keys() | actual.keys()):
        if path not in actual or path not in expected:
            found.append(f"{path}: only {'expected' if path in expected else 'there'}")
            continue
        for member, value in expected[path].items():
            if member not in but and value != actual[path][member]:
                found.append(f"{path}: {member} {value!r}, there {actual[path][member]!r}")
    return found


class Committing:
    """Makes bundles of a user's that are known to be of an image, and images of them."""

    def __init__(self, runrootless: Runrootless, trees: Trees) -> None:
        self.runrootless = runrootless
        self.user: Unprivileged = runrootless.user
        self._trees = trees
        self.cache = os.path.join(self.user.home, ".cache")

    def new_directory(self, *, for_user: bool = True) -> str:
        """Make a directory."""
        return self._trees.new_directory("images", for_user=for_user)

    def busybox_bundle(self) -> Bundle:
        """Make a bundle of an image of busybox, with a few files in /srv."""
        directory = self.new_directory()
        files = [File("srv/", mode=0o755), File("srv/mine", 12, 34), File("srv/other")]
        archive = busybox_layer(f"{directory}/layer.tar", files)
        self.user.give(archive)
        path = f"{directory}/bundle"
        self.runrootless("bundle", "--quiet", archive, path).check()
        os.unlink(f"{path}/config.json")
        bundle = self.runrootless.bundle_at(path, f"{path}/rootfs")
        self.has_been_unpacked(bundle, archive)
        return bundle

    def has_been_unpacked(self, bundle: Bundle, archive: str) -> None:
        """Write beside a bundle what is known of one that was made of this tar."""
        blobs = f"{self.cache}/runrootless/blobs/sha256"
        self.user.run(["mkdir", "-p", blobs]).check()
        with open(archive, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        blob = f"{blobs}/{digest}"
        if not os.path.lexists(blob):
            os.symlink(archive, blob)
        layer = {
            "digest": f"sha256:{digest}",
            "diff_id": f"sha256:{digest}",
            "size": os.stat(archive).st_size,
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
        }
        config = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2020-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"]},
            "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "the tests"}],
            "rootfs": {"type": "layers", "diff_ids": [layer["diff_id"]]},
        }
        image = {
            "source": "docker-archive:base.tar",
            "manifest": {"raw": "{}"},
            "platform": {"architecture": "amd64", "os": "linux"},
            "config": {"raw": json.dumps(config)},
            "layers": [layer],
        }
        path = os.path.join(bundle.path, "image.json")
        with open(path, "w") as described:
            json.dump(image, described)
        self.user.give(path)
        self.write_snapshot(bundle)

    def write_snapshot(self, bundle: Bundle) -> None:
        """Have the bundle be as it was unpacked."""
        script = "import sys; from runrootless.images import snapshot; snapshot.write(sys.argv[1])"
        self.user.run([sys.executable, "-c", script, bundle.path]).check()

    def look(self, bundle: Bundle) -> Seen:
        """Return what a container sees of its root file system."""
        return seen(self.runrootless.run(bundle.set(["python3", "-c", LOOK])))


def umoci_unpack(image: str, directory: str) -> str:
    """Unpack an image of a layout (PATH:TAG) as real root; return the root file system."""
    bundle = os.path.join(directory, "unpacked")
    shutil.rmtree(bundle, ignore_errors=True)
    done = subprocess.run(
        ["umoci", "unpack", "--image", image, bundle], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return os.path.join(bundle, "rootfs")


def manifest_of(layout: str, tag: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the manifest and the configuration of an image in a layout."""
    with open(f"{layout}/index.json") as file:
        index = json.load(file)
    name = "org.opencontainers.image.ref.name"
    (entry,) = [one for one in index["manifests"] if one["annotations"].get(name) == tag]

    def read(digest: str) -> Any:
        with open(f"{layout}/blobs/{digest.replace(':', '/')}", "rb") as file:
            data = file.read()
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
        return json.loads(data)

    manifest = read(entry["digest"])
    return manifest, read(manifest["config"]["digest"])
