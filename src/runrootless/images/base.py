"""The image that a bundle was made of: ``image.json``, and its layers.

They are in the cache, or in the image layout that the image is of. What a tar has of them is
brought into the cache when it is wanted.
"""

from __future__ import annotations

import hashlib
import os
import sys

from runrootless.bundle import json_file
from runrootless.errors import Error
from runrootless.images import tar_stream
from runrootless.images.archive import Archive
from runrootless.images.cache import Cache
from runrootless.images.image import Descriptor
from runrootless.images.layout import blob_name
from runrootless.images.places import clean
from runrootless.images.streams import Digest, Limit, Stream
from runrootless.images.tar_stream import Tar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

NAME = "image.json"

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
# Links of links to look through: tar(1) writes none of those.
_LINKS_LIMIT = 8


class Layer:
    """A layer of an image, as ``image.json`` has it."""

    __slots__ = ("descriptor", "diff_id", "layout")

    def __init__(self, layer: Mapping[str, Any], layout: str) -> None:
        self.layout = layout
        self.descriptor = Descriptor(
            str(layer["digest"]), int(layer["size"]), str(layer["mediaType"])
        )
        Digest(self.descriptor.digest)
        self.diff_id = str(layer["diff_id"])

    @property
    def path(self) -> str:
        """Where it is, if it is there: in the cache, or in the layout that the image is of."""
        cached = Cache().path_of(self.descriptor.digest)
        if os.path.isdir(self.layout) and not os.path.exists(cached):
            return os.path.join(self.layout, blob_name(self.descriptor.digest))
        return cached

    def is_there(self) -> bool:
        """Return whether it is there, by its size."""
        try:
            return os.stat(self.path).st_size == self.descriptor.size
        except OSError:
            return False


class Base:
    """An image: its ``config`` as it is, and its ``layers``, the lowest first.

    Without layers the whole tree is to be written as one.
    """

    __slots__ = ("config", "layers", "source")

    def __init__(self, config: dict[str, Any], layers: list[Layer], source: str) -> None:
        self.config = config
        self.layers = layers
        self.source = source

    def require_layers(self) -> None:
        """Have all layers where their paths say. Raises ``Error``, and OSError of the cache."""
        missing = [layer for layer in self.layers if not layer.is_there()]
        archive = missing[0].layout if missing else ""
        if os.path.isfile(archive):
            _bring(missing, archive)
            missing = [layer for layer in missing if not layer.is_there()]
        if missing:
            raise Error(
                f"the layer {missing[0].descriptor.digest} of {self.source} is not there any "
                "more: make another bundle of that image, which brings it; --squash writes the "
                "whole tree as one layer"
            )

    def contents(self, paths: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the SHA-256 of what the image has in regular files, if it has them.

        What cannot be read of a layer counts as if it were not there.
        """
        found: dict[bytes, bytes] = {}
        wanted = {path: {path} for path in paths}
        for layer in reversed(self.layers):
            if not wanted:
                break
            try:
                _look_up(layer.path, wanted, found)
            except (OSError, Error):
                # What is in those below may be what was replaced in this one.
                break
        return found


def read(bundle: str) -> Base | None:
    """Return the image of a bundle, None if it was made of none. Raises ``Error``, OSError."""
    path = os.path.join(bundle, NAME)
    try:
        value = json_file.read(path)
    except FileNotFoundError:
        return None
    try:
        config = json_file.parse(value["config"]["raw"], path)
        # What came as a tar has no blobs to build on.
        stored = value["layers"] if value["manifest"] is not None else ()
        layers = [Layer(layer, value.get("layout") or "") for layer in stored]
        if not isinstance(config, dict):
            raise TypeError
        return Base(config, layers, str(value.get("source", "the image")))
    except (KeyError, TypeError, ValueError):
        raise Error(f"{path} does not describe an image: --squash goes without it") from None


def _bring(layers: Iterable[Layer], archive: str) -> None:
    """Take layers that an image layout in a tar has into the cache. Raises ``Error``, OSError.

    What it has not is left out.
    """
    cache = Cache()
    files = Archive(archive, cache.path, Limit(sys.maxsize))
    for layer in layers:
        try:
            file = files.open(blob_name(layer.descriptor.digest))
        except FileNotFoundError:
            continue
        with file:
            cache.take(layer.descriptor, file)


def _look_up(
    path: str, wanted: dict[bytes, set[bytes]], found: dict[bytes, bytes], depth: int = 0
) -> None:
    """Take from ``wanted`` what a layer tells of, names to the paths that are asked for."""
    aliases: dict[bytes, set[bytes]] = {}
    settled: set[bytes] = set()
    removed: set[bytes] = set()
    with Stream(open(path, "rb", buffering=0), path, Limit(sys.maxsize)) as stream:
        tar = Tar(stream, path)
        for entry in tar.entries():
            name = clean(entry.name)
            directory, slash, base = name.rpartition(b"/")
            if base == _OPAQUE:
                removed.add(directory)
            elif base.startswith(_WHITEOUT):
                removed.add(directory + slash + base[len(_WHITEOUT) :])
            if entry.kind != tar_stream.DIRECTORY:
                removed.add(name)
            if name not in wanted:
                continue
            settled.add(name)
            if entry.kind == tar_stream.REGULAR and entry.parts is None:
                digest = hashlib.sha256()
                for data in tar.content():
                    digest.update(data)
                found.update(dict.fromkeys(wanted[name], digest.digest()))
            elif entry.kind == tar_stream.LINK:
                aliases.setdefault(clean(entry.link), set()).update(wanted[name])
    for name in settled:
        del wanted[name]
    # What is below something that this layer has put there or removed is in none below it.
    for name in [one for one in wanted if _is_within(one, removed)]:
        del wanted[name]
    if aliases and depth < _LINKS_LIMIT:
        # Their files come before them.
        here = dict(aliases)
        _look_up(path, here, found, depth + 1)
        for name, paths in here.items():
            wanted.setdefault(name, set()).update(paths)


def _is_within(name: bytes, places: set[bytes]) -> bool:
    while name not in places:
        if not name:
            return False
        name = name.rpartition(b"/")[0]
    return True
