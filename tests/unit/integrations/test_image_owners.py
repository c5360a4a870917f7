"""Reading owners from what containers/storage keeps of a layer's tar, and recording them."""

import base64
import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Literal

import pytest

from runrootless.errors import Error
from runrootless.integrations import image_owners, tar_split
from support.snapshots import recorded_owner

BIG = 2**32 - 2


def member(name: str, uid: int, gid: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.uid, info.gid, info.type = uid, gid, kind
    info.size = 700 if kind == tarfile.REGTYPE else 0
    return info


def describe(path: Path, members: list[tarfile.TarInfo], form: Literal[1, 2]) -> None:
    """Write a description as tar-split does: headers and padding, without the contents."""
    lines = []
    padding = b""
    for info in members:
        # frombuf(3) of the reader sees the same bytes that a tar has.
        header = padding + info.tobuf(form, "utf-8", "surrogateescape")
        padding = bytes(-info.size % 512)
        lines.append({"type": 2, "payload": base64.b64encode(header).decode()})
        try:
            lines.append({"type": 1, "name": info.name.encode("utf-8").decode()})
        except UnicodeEncodeError:
            raw = info.name.encode("utf-8", "surrogateescape")
            lines.append({"type": 1, "name_raw": base64.b64encode(raw).decode()})
    lines.append({"type": 2, "payload": base64.b64encode(padding + bytes(1024)).decode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_owners_of_all_kinds_of_headers(tmp_path: Path, form: Literal[1, 2]) -> None:
    names = ["a", "d" * 99 + "/" + "long" * 60, "ä"]
    members = [member(name, number + 1, BIG) for number, name in enumerate(names)]
    members += [member("d", 3, 4, tarfile.DIRTYPE), member("l", 5, 6, tarfile.SYMTYPE)]
    members += [member("none", 2**32 - 1, 0), member("raw\udcff", 7, 8)]
    describe(tmp_path / "x", members, form)
    assert list(tar_split.owners(str(tmp_path / "x"))) == [
        *((name, number + 1, BIG) for number, name in enumerate(names)),
        ("d", 3, 4),
        ("raw\udcff", 7, 8),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b'{"type": 1}\n',
        b"{\n",
        b'{"type": 2, "payload": "A"}\n',
        b'{"payload": ""}\n',
        b"[]\n",
        b'{"type": 2, "payload": "AAAA"}\n{"type": 1, "name": "x"}\n',
    ],
)
def test_a_damaged_description(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(Error, match=r"is damaged .*: remove the image and pull it again"):
        list(tar_split.owners(str(path)))


def test_no_gzip(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("{}")
    with pytest.raises(Error, match="is damaged"):
        list(tar_split.owners(str(tmp_path / "x")))


def test_a_description_cut_short(tmp_path: Path) -> None:
    buffer = io.BytesIO(gzip.compress(os.urandom(9999)))
    (tmp_path / "x").write_bytes(buffer.getvalue()[:5000])
    with pytest.raises(Error, match="is damaged"):
        list(tar_split.owners(str(tmp_path / "x")))


class TestOverlay:
    @pytest.fixture
    def container(self, tmp_path: Path) -> Path:
        """A storage with a container of two layers; its files are those of the lower one."""
        home = tmp_path / "overlay"
        for layer in ("low", "high", "own"):
            (home / layer / "diff").mkdir(parents=True)
        (home / "l").mkdir()
        for name, layer in (("A", "low"), ("B", "high")):
            (home / "l" / name).symlink_to(f"../{layer}/diff")
        (home / "own/lower").write_text("l/B:l/A")
        (home / "own/merged").mkdir()
        (home / "low/diff/f").write_text("")
        (home / "high/diff/f").write_text("")
        for layer, uid in (("low", 5), ("high", 6)):
            describe(
                tmp_path / f"overlay-layers/{layer}.tar-split.gz",
                [member("f", uid, 0), member("../../outside", 9, 9), member("gone", 9, 9)],
                tarfile.PAX_FORMAT,
            )
        (tmp_path / "outside").write_text("")
        return home / "own"

    def test_each_layer_has_its_own(self, container: Path, tmp_path: Path) -> None:
        assert image_owners.restore(str(container / "merged"))
        home = container.parent
        assert recorded_owner(str(home / "low/diff/f")) == (5, 0)
        assert recorded_owner(str(home / "high/diff/f")) == (6, 0)
        # ".." stops at the root of the layer.
        assert recorded_owner(str(tmp_path / "outside")) == (0, 0)

    def test_all_images(self, container: Path, tmp_path: Path) -> None:
        image_owners.restore_images(str(tmp_path))
        files = [str(container.parent / layer / "diff/f") for layer in ("low", "high")]
        assert [recorded_owner(file) for file in files] == [(5, 0), (6, 0)]
        os.removexattr(files[0], "user.rootlesscontainers")
        image_owners.restore_images(str(tmp_path))
        assert recorded_owner(files[0]) == (0, 0)

    def test_once(self, container: Path) -> None:
        file = str(container.parent / "low/diff/f")
        image_owners.restore(str(container / "merged"))
        os.removexattr(file, "user.rootlesscontainers")
        image_owners.restore(str(container / "merged"))
        assert recorded_owner(file) == (0, 0)

    def test_what_a_committed_container_recorded_counts(self, container: Path) -> None:
        file = str(container.parent / "high/diff/f")
        os.setxattr(file, "user.rootlesscontainers", b"\x08\x07")
        image_owners.restore(str(container / "merged"))
        assert recorded_owner(file) == (7, 0)

    def test_symlinks_do_not_lead_out(self, container: Path, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("")
        file = container.parent / "low/diff/f"
        file.unlink()
        file.symlink_to(victim)
        image_owners.restore(str(container / "merged"))
        assert os.listxattr(victim) == []

    def test_no_storage(self, tmp_path: Path) -> None:
        (tmp_path / "rootfs").mkdir()
        assert not image_owners.restore(str(tmp_path / "rootfs"))
        image_owners.restore_images(str(tmp_path))


def test_all_images_of_the_driver_that_copies(tmp_path: Path) -> None:
    home = tmp_path / "vfs/dir"
    for layer, names in (("low", ["f", "g"]), ("high", ["f", "g", "h"])):
        (home / layer).mkdir(parents=True)
        for name in names:
            (home / layer / name).write_text("")
    for layer, members in (
        ("low", [member("f", 5, 0), member("g", 5, 0)]),
        ("high", [member("g", 6, 0), member("h", 6, 0)]),
    ):
        path = tmp_path / f"vfs-layers/{layer}.tar-split.gz"
        describe(path, members, tarfile.PAX_FORMAT)
    layers = [{"id": "low"}, {"id": "high", "parent": "low"}]
    (tmp_path / "vfs-layers/layers.json").write_text(json.dumps(layers))
    image_owners.restore_images(str(tmp_path))
    owners = {
        layer: [recorded_owner(str(home / layer / n))[0] for n in "fg"] for layer in ("low", "high")
    }
    assert owners == {"low": [5, 5], "high": [5, 6]}
    assert recorded_owner(str(home / "high/h")) == (6, 0)
