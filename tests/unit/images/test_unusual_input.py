"""What images, bundles and callers may bring that is not as it should be: one line says so."""

import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.errors import Error, one_line
from runrootless.images import build, edit_config, own_namespace, snapshot, write_layout
from runrootless.images.archive import Archive, docker_image
from runrootless.images.image import Image, Platform
from runrootless.images.new_image import LAYER, Blob, NewImage, digest_of
from runrootless.images.progress import Progress
from runrootless.images.streams import Limit

HALVES = st.integers(0xD800, 0xDFFF).map(chr)


def unpack(config: dict[str, Any], directory: int) -> None:
    image = Image("it", Platform("linux", "amd64"), json.dumps(config).encode(), [])
    build.unpack(image, directory, Limit(1 << 20), Progress(True))


@given(half=HALVES, place=st.sampled_from(["env", "label", "name", "os"]))
def test_half_characters_in_a_configuration(half: str, place: str) -> None:
    configs: dict[str, dict[str, Any]] = {
        "env": {"config": {"Env": [f"A={half}"]}},
        "label": {"config": {"Labels": {"x": half}}},
        "name": {"config": {"Labels": {half: "x"}}},
        "os": {"os": half},
    }
    with pytest.raises(Error, match="half a character") as caught:
        unpack(configs[place], -1)
    assert f"\\u{ord(half):04x}" in one_line(caught.value)


def test_whole_characters_in_a_configuration(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        unpack({"config": {"Env": ["A=\U0001f40d"], "Labels": {"é": "日"}}}, directory)
    finally:
        os.close(directory)
    assert os.listdir(tmp_path) == ["rootfs"]


def archive(directory: Path, *images: dict[str, Any]) -> Archive:
    path = directory / "image.tar"
    with tarfile.open(path, "w") as file:
        for name, value in (("manifest.json", list(images)), ("c", {"rootfs": {"diff_ids": []}})):
            data = json.dumps(value).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    return Archive(str(path), str(directory), Limit(1 << 20))


@pytest.mark.parametrize(
    "image", [{"Config": "\ud800", "Layers": []}, {"Config": "c", "Layers": ["\udfff/x"]}]
)
def test_half_characters_in_the_names_of_an_archive(image: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Error, match="it is damaged") as caught:
        docker_image(archive(tmp_path, image), "it", "")
    assert one_line(caught.value).isascii()


@pytest.mark.parametrize("reference", ["@²", "@٣", "@1", "@", "@" + "9" * 5000])
def test_numbers_of_images_that_are_none(reference: str, tmp_path: Path) -> None:
    there = archive(tmp_path, {"Config": "c", "Layers": []})
    with pytest.raises(Error, match="add :NAME of one image"):
        docker_image(there, "it", reference)
    assert docker_image(there, "it", "@0").layers == []


@pytest.mark.parametrize("names", [["stdout"], ["stderr"], ["stdout", "stderr"]])
def test_streams_that_are_closed(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in names:
        monkeypatch.setattr(sys, name, None)
    assert own_namespace.call(lambda: 5) == 5


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@given(name=st.sampled_from(["Env", "Labels", "ExposedPorts", "Volumes"]), value=values)
def test_members_of_another_type(name: str, value: Any) -> None:
    config = {"config": {name: value}}
    change = {
        "Env": "env=A=b",
        "Labels": "label=A=b",
        "ExposedPorts": "port=A",
        "Volumes": "volume=A",
    }
    is_right = (
        isinstance(value, list) and all(isinstance(one, str) for one in value)
        if name == "Env"
        else isinstance(value, dict)
    )
    if value and not is_right:
        with pytest.raises(Error, match=f"{name} in the configuration"):
            edit_config.change(config, [change[name]])
    else:
        edit_config.change(config, [change[name]])
        assert ("A=b" if name == "Env" else "A") in config["config"][name]


@given(value=values)
def test_a_history_of_another_type(value: Any) -> None:
    is_right = isinstance(value, list) and all(isinstance(one, dict) for one in value)
    config = {"history": value}
    try:
        edit_config.finish(config, ["sha256:0"], 1, 0, "", "")
        assert not value or is_right
        assert isinstance(config["history"], list)
    except Error as error:
        assert value and not is_right
        assert "history in the configuration" in str(error)


@pytest.mark.parametrize("there", [None, b"", b"x" * 5, b"layer", "fifo"])
def test_what_has_a_blobs_name_is_replaced_unless_it_is_that(there: Any, tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(b"layer")
    digest = digest_of(b"layer")
    layer = Blob(digest, digest, 5, LAYER, str(tmp_path / "layer"))
    layout = tmp_path / "layout"
    image = NewImage(edit_config.new(), [layer])
    write_layout.write(str(layout), "one", image)
    blob = layout / "blobs" / "sha256" / digest.partition(":")[2]
    if there == "fifo":
        blob.unlink()
        os.mkfifo(blob)
    elif there is None:
        blob.unlink()
    else:
        blob.write_bytes(there)
    inode = blob.stat().st_ino if there == b"layer" else None
    write_layout.write(str(layout), "two", image)
    assert blob.is_file()
    assert blob.read_bytes() == b"layer"
    assert inode in (None, blob.stat().st_ino)


def test_files_with_holes_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "config.json").write_text('{"root": {"path": "rootfs"}}')
    full, holes = tmp_path / "rootfs" / "full", tmp_path / "rootfs" / "holes"
    full.write_bytes(b"x")
    with open(holes, "wb") as file:
        file.truncate(64 << 20)
    snapshot.write(str(tmp_path))
    known = {one.path: one for one in snapshot.read(str(tmp_path))}
    assert known[b"holes"].content == b""
    # And commit has not to read it either.
    assert known[b"holes"].changed == holes.stat().st_ctime_ns
    assert known[b"holes"].is_untouched(holes.stat())
