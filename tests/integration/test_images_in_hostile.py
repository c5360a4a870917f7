"""Images of which something is wrong: nothing outside is touched, and nothing half-made is left."""

import gzip
import io
import json
import os
import signal
import stat
import subprocess
import tarfile
import time

import pytest

from support.containers import COMMAND, Runrootless
from support.layers import (
    File,
    Layout,
    directory,
    hard_link,
    opaque,
    symlink,
    tar,
    whiteout,
)
from support.processes import Result, eventually
from support.trees import Trees

KEPT = "kept as it is\n"


class Place:
    """Where bundles are made, and files beside them that nobody is to touch."""

    def __init__(self, runrootless: Runrootless, trees: Trees) -> None:
        self.runrootless = runrootless
        self.path = trees.new_directory("place", for_user=True)
        self.layout = Layout(trees.new_directory("layout", for_user=False))
        self.outside = f"{self.path}/outside"
        os.mkdir(self.outside)
        with open(f"{self.outside}/canary", "w") as file:
            file.write(KEPT)
        for path in (f"{self.outside}/canary", self.outside):
            runrootless.user.give(path)
        self.before = self._look()

    @property
    def bundle(self) -> str:
        return f"{self.path}/bundle"

    def make(self, source: str = "", *options: str, input: str | None = None) -> Result:
        source = source or f"oci:{self.layout.path}"
        return self.runrootless("bundle", *options, source, self.bundle, input=input, timeout=60)

    def assert_untouched(self, done: Result | None = None) -> None:
        """Nothing outside has changed; after a failure there is one line, and no bundle."""
        assert self._look() == self.before
        if done is not None and done.returncode:
            said = [line for line in done.stderr.splitlines() if "unpacking" not in line[:25]]
            assert len(said) == 1 and "fault of runrootless" not in said[0], done
            assert os.listdir(self.path) == ["outside"]

    def _look(self) -> list[object]:
        with open(f"{self.outside}/canary") as file:
            content = file.read()
        found: list[object] = [content]
        for path in (self.outside, f"{self.outside}/canary"):
            s = os.stat(path)
            found += [s.st_ino, s.st_mode, s.st_uid, s.st_nlink, s.st_mtime_ns, os.listxattr(path)]
        return [*found, os.listdir(self.outside)]


@pytest.fixture
def place(runrootless: Runrootless, trees: Trees) -> Place:
    return Place(runrootless, trees)


ESCAPES = {
    "a name with dots": lambda out: [[File("../outside/canary", content=b"x")]],
    "many dots": lambda out: [[File("../" * 30 + out[1:] + "/canary", content=b"x")]],
    "an absolute name": lambda out: [[File(f"{out}/canary", content=b"x")]],
    "through an absolute symlink": lambda out: [
        [symlink("way", out), File("way/canary", content=b"x"), File("way/new")]
    ],
    "through a relative symlink": lambda out: [
        [symlink("way", "../outside"), File("way/canary", content=b"x")]
    ],
    "through one of a lower layer": lambda out: [
        [symlink("way", out)],
        [File("way/canary", content=b"x"), whiteout("way/canary"), opaque("way")],
    ],
    "through the root's parent": lambda out: [[symlink("way", "/.."), File("way/outside/x")]],
    "a directory of a symlink": lambda out: [[symlink("way", out), directory("way", mode=0)]],
    "a file of a symlink": lambda out: [
        [symlink("way", f"{out}/canary"), File("way", content=b"x", mode=0)]
    ],
    "a hard link outside": lambda out: [[hard_link("way", f"{out}/canary")]],
    "a hard link with dots": lambda out: [[hard_link("way", "../outside/canary")]],
    "a hard link through a symlink": lambda out: [
        [symlink("way", out), hard_link("link", "way/canary"), File("link", mode=0)]
    ],
    "a hard link to a symlink": lambda out: [
        [symlink("way", f"{out}/canary"), hard_link("link", "way"), File("link", content=b"x")]
    ],
    "a whiteout through a symlink": lambda out: [[symlink("way", out)], [whiteout("way/canary")]],
    "an opaque symlink": lambda out: [[symlink("way", out)], [opaque("way")]],
    "a whiteout of the parent": lambda out: [[File("a/b")], [File("a/.wh...")]],
    "a whiteout of the directory": lambda out: [[File("a/b")], [File("a/.wh..")]],
    "a whiteout of nothing": lambda out: [[File("a/b")], [File("a/.wh.")]],
    "another root": lambda out: [[symlink("/", out), File("canary", content=b"x")]],
    "a root that is a file": lambda out: [[File(".", content=b"x")]],
    "a directory that becomes a symlink": lambda out: [
        [directory("way"), File("way/one")],
        [symlink("way", out), File("way/canary", content=b"x")],
    ],
    "a loop of symlinks": lambda out: [[symlink("a", "b"), symlink("b", "a"), File("a/x")]],
    "something in a file": lambda out: [[File("a"), File("a/b")]],
    "a link to a directory": lambda out: [[directory("a"), hard_link("b", "a")]],
    "a link to nothing": lambda out: [[hard_link("a", "b")]],
    "a link to itself": lambda out: [[File("a"), hard_link("a", "a")]],
    "an empty symlink": lambda out: [[symlink("a", "")]],
    "too long a component": lambda out: [[File("x" * 300)]],
    "too long a name": lambda out: [[File("x/" * 2100 + "x")]],
    "forged records": lambda out: [
        [File("a", xattrs={"user.rootlesscontainers": b"\x08\x01", "user.runrootless.x": b"y"})]
    ],
    "a large attribute": lambda out: [[File("a", xattrs={"user.large": b"x" * 60_000})]],
    "an unknown attribute": lambda out: [[File("a", xattrs={"nothing.known": b"x"})]],
    "a bad list": lambda out: [[File("a", xattrs={"system.posix_acl_access": b"x" * 7})]],
    "a device of no number": lambda out: [[File("a", "block", device=(0o7777777, 0o7777777))]],
    "deep directories": lambda out: [[File("d/" * 2000 + "f")], [whiteout("d")]],
}


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_outside_is_touched(name: str, place: Place) -> None:
    place.layout.add("hostile", ESCAPES[name](place.outside))
    done = place.make()
    place.assert_untouched(done)
    if done.returncode == 0:
        attributes = set()
        for path, _, files in os.walk(f"{place.bundle}/rootfs"):
            for file in files:
                attributes |= set(os.listxattr(f"{path}/{file}", follow_symlinks=False))
        assert not attributes & {"user.rootlesscontainers", "user.runrootless.x"}


def _damaged(layout: Layout, part: str) -> None:
    """Make an image of which a part is not what it should be."""
    layout.add("image", [[File("a", content=os.urandom(10_000))]], how="none")
    manifest = json.loads(layout.read(layout.image("image")))
    layer = manifest["layers"][0]
    config = manifest["config"]
    path = layout.path_of(layer["digest"])
    if part == "a byte of the layer":
        with open(path, "r+b") as file:
            file.seek(2000)
            file.write(b"\0\0\0\0")
    elif part == "a shorter layer":
        os.truncate(path, 5000)
    elif part == "a longer layer":
        with open(path, "ab") as file:
            file.write(bytes(1024))
    elif part == "no layer":
        os.unlink(path)
    elif part == "a fifo":
        os.unlink(path)
        os.mkfifo(path)
    elif part == "the configuration":
        with open(layout.path_of(config["digest"]), "a") as file:
            file.write(" ")
    elif part == "no JSON":
        with open(f"{layout.path}/index.json", "w") as file:
            file.write("{")
    elif part == "another JSON":
        with open(f"{layout.path}/index.json", "w") as file:
            file.write('{"manifests": [[], 1, null]}')
    elif part == "deep JSON":
        with open(f"{layout.path}/index.json", "w") as file:
            file.write("[" * 100_000)
    elif part == "a digest with a path":
        about = layout.image("image")
        with open(f"{layout.path}/index.json", "w") as file:
            json.dump({"manifests": [{**about, "digest": "sha256:../../../outside/canary"}]}, file)
    elif part == "another diff ID":
        layout.tag("image", _with_diff_id(layout, manifest))
        os.unlink(f"{layout.path}/index.json")
        with open(f"{layout.path}/index.json", "w") as file:
            json.dump({"manifests": [_with_diff_id(layout, manifest)]}, file)


def _with_diff_id(layout: Layout, manifest: dict[str, object]) -> dict[str, object]:
    config = {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]}}
    changed = {**manifest, "config": layout.blob(json.dumps(config).encode(), "config")}
    return layout.blob(json.dumps(changed).encode(), "application/vnd.oci.image.manifest.v1+json")


@pytest.mark.parametrize(
    "part",
    [
        "a byte of the layer",
        "a shorter layer",
        "a longer layer",
        "no layer",
        "a fifo",
        "the configuration",
        "no JSON",
        "another JSON",
        "deep JSON",
        "a digest with a path",
        "another diff ID",
    ],
)
def test_what_is_damaged_is_refused(part: str, place: Place) -> None:
    _damaged(place.layout, part)
    done = place.make()
    assert done.returncode == 1, done
    place.assert_untouched(done)


def _broken_tars() -> dict[str, bytes]:
    good = tar([File("a", content=b"x" * 5000), File("b" * 200, content=b"y")])
    header = bytearray(good[:512])
    header[0:1] = b"c"
    unknown = bytearray(good)
    unknown[156:157] = b"Z"
    unknown[148:156] = b"%06o\0 " % (sum(unknown[:148]) + 8 * 32 + sum(unknown[156:512]))
    return {
        "empty": b"",
        "text": b"this is no tar\n" * 100,
        "cut in a file": good[:2000],
        "cut in a header": good[:300],
        "a wrong checksum": bytes(header) + good[512:],
        "an unknown type": bytes(unknown),
        "cut gzip": gzip.compress(good)[:-20],
        "damaged gzip": gzip.compress(good)[:60] + b"\xff" * 40,
        "a huge extended header": _extended(b"30 path=" + b"x" * 30),
        "a damaged extended header": _extended(b"99 path=x\n"),
        "an extended header without an end": _extended(b"x" * 50),
        "a negative size": _extended(b"11 size=-5\n"),
        "an owner that cannot be": _extended(b"23 uid=99999999999999\n"),
        "an endless sparse file": _extended(
            b"22 GNU.sparse.major=1\n30 GNU.sparse.realsize=99999\n"
        ),
    }


def _extended(records: bytes) -> bytes:
    entry = tarfile.TarInfo("x")
    entry.type = tarfile.XHDTYPE
    entry.size = len(records)
    buffer = io.BytesIO()
    buffer.write(entry.tobuf(tarfile.USTAR_FORMAT))
    buffer.write(records.ljust(-(-len(records) // 512) * 512, b"\0"))
    buffer.write(tar([File("a", content=b"x" * 100)]))
    return buffer.getvalue()


@pytest.mark.parametrize("name", _broken_tars())
def test_what_is_no_tar_is_refused(name: str, place: Place) -> None:
    path = f"{place.outside}.tar"
    with open(path, "wb") as file:
        file.write(_broken_tars()[name])
    with open(path, "rb") as file:
        done = place.runrootless.user.run(
            [COMMAND, "bundle", "-", place.bundle], stdin=file.fileno()
        )
    os.unlink(path)
    assert done.returncode == 1, done
    place.assert_untouched(done)


def test_a_bomb_is_refused(place: Place) -> None:
    big = tar([File("zeros", content=bytes(50 << 20))])
    place.layout.tag("bomb", place.layout.manifest([big]))
    done = place.make("", "--max-size", "20M")
    assert done.returncode == 1
    assert "more than 20971520 bytes" in done.stderr and "--max-size" in done.stderr
    place.assert_untouched(done)
    assert place.make("", "--max-size", "60M").returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_that_is_interrupted_leaves_nothing(
    place: Place, number: signal.Signals, code: int
) -> None:
    process, feed = _begin(place)
    process.send_signal(number)
    os.close(feed)
    assert process.wait(30) == code
    assert os.listdir(place.path) == ["outside"]


def test_what_a_killed_one_leaves_is_removed_by_the_next(place: Place) -> None:
    process, feed = _begin(place)
    process.kill()
    process.wait(30)
    os.close(feed)
    left = [name for name in os.listdir(place.path) if name != "outside"]
    assert len(left) == 1 and left[0].startswith(".runrootless-bundle-")
    # The process that unpacks ends with it, and holds the lock until then.
    place.layout.add("image", [[File("a")]])

    def is_gone() -> bool:
        place.make("", "--force").check()
        return sorted(os.listdir(place.path)) == ["bundle", "outside"]

    eventually(is_gone, "what was left is removed")


def _begin(place: Place) -> "tuple[subprocess.Popen[str], int]":
    """Begin to unpack what does not end; return when a directory that is closed is there."""
    reader, feed = os.pipe()
    process = place.runrootless.user.start([COMMAND, "bundle", "-", place.bundle], stdin=reader)
    os.close(reader)
    layer = tar([directory("closed", mode=0), File("closed/file", content=b"x" * 5_000_000)])
    os.set_blocking(feed, False)
    view = memoryview(layer)[:4_000_000]
    deadline = time.monotonic() + 30
    while view and time.monotonic() < deadline:
        try:
            view = view[os.write(feed, view) :]
        except BlockingIOError:
            time.sleep(0.01)
    assert not view
    return process, feed


def test_what_is_there_is_replaced_by_force_alone(place: Place) -> None:
    place.layout.add("image", [[directory("d", mode=0), File("d/a"), File("which", content=b"1")]])
    place.make().check()
    inode = os.stat(place.bundle).st_ino
    done = place.make()
    assert done.returncode == 1 and "--force" in done.stderr
    assert os.stat(place.bundle).st_ino == inode
    place.make("", "--force").check()
    assert os.stat(place.bundle).st_ino != inode
    assert sorted(os.listdir(place.path)) == ["bundle", "outside"]
    # One that cannot be made leaves what was there.
    inode = os.stat(place.bundle).st_ino
    assert place.make("oci:/nowhere", "--force").returncode == 1
    assert os.stat(place.bundle).st_ino == inode


def test_force_removes_bundles_alone(place: Place) -> None:
    place.layout.add("image", [[File("a")]])
    for path in (place.outside, f"{place.outside}/canary", f"{place.path}/link"):
        if path.endswith("link"):
            os.symlink("outside", path)
        done = place.runrootless("bundle", "--force", f"oci:{place.layout.path}", path)
        assert done.returncode == 1 and (
            "no bundle of" in done.stderr or "not replaced" in done.stderr
        )
        place.assert_untouched()


def test_a_group_that_is_passed_on_is_not(place: Place) -> None:
    os.chmod(place.path, 0o2755)
    place.layout.add("image", [[directory("d"), File("d/f", mode=0o2755)]])
    place.make().check()
    for name in ("", "/rootfs", "/rootfs/d"):
        assert not os.stat(place.bundle + name).st_mode & stat.S_ISGID
    assert os.stat(f"{place.bundle}/rootfs/d/f").st_mode & stat.S_ISGID
