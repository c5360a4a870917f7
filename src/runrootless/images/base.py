"""The image that a bundle was made of: ``image.json``, and its layers in the cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from contextlib import contextmanager

from runrootless.bundle import json_file
from runrootless.errors import Error
from runrootless.images.cache import Cache
from runrootless.images.layout import blob_name
from runrootless.images.streams import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import IO, Any, BinaryIO

NAME = "image.json"

_PART = 1 << 20
_ZSTD = b"\x28\xb5\x2f\xfd"
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
# Links of links to look through: tar(1) writes none of those.
_LINKS_LIMIT = 8


class Layer:
    """A layer of an image, as ``image.json`` has it."""

    __slots__ = ("_layout", "diff_id", "digest", "media_type", "size")

    def __init__(self, layer: Mapping[str, Any], layout: str) -> None:
        self._layout = layout
        self.digest = str(layer["digest"])
        self.diff_id = str(layer["diff_id"])
        self.size = int(layer["size"])
        self.media_type = str(layer["mediaType"])

    @property
    def path(self) -> str:
        """Where it is, if it is there: in the cache, or in the layout that the image is of."""
        cached = Cache().path_of(self.digest)
        if self._layout and not os.path.exists(cached):
            return os.path.join(self._layout, blob_name(self.digest))
        return cached


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
        """Raise ``Error`` unless all layers are in the cache."""
        for layer in self.layers:
            try:
                size = os.stat(layer.path).st_size
            except OSError:
                size = -1
            if size != layer.size:
                raise Error(
                    f"the layer {layer.digest} of {self.source} is not there any more: "
                    "--squash writes the whole tree as one layer"
                )

    def contents(self, paths: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the SHA-256 of what the image has in regular files, if it has them.

        What cannot be read of a layer counts as if it were not there.
        """
        found: dict[bytes, bytes] = {}
        wanted = {os.fsdecode(path): {path} for path in paths}
        for layer in reversed(self.layers):
            if not wanted:
                break
            try:
                _look_up(layer.path, wanted, found)
            except (OSError, tarfile.TarError, EOFError, Error):
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
        for layer in layers:
            Digest(layer.digest)
        return Base(config, layers, str(value.get("source", "the image")))
    except (KeyError, TypeError, ValueError):
        raise Error(f"{path} does not describe an image: --squash goes without it") from None


def _look_up(
    path: str, wanted: dict[str, set[bytes]], found: dict[bytes, bytes], depth: int = 0
) -> None:
    """Take from ``wanted`` what a layer tells of, names to the paths that are asked for."""
    aliases: dict[str, set[bytes]] = {}
    settled: set[str] = set()
    removed: set[str] = set()
    with _opened(path) as tar:
        for member in tar:
            name = os.path.normpath(member.name).lstrip("/")
            directory, base = os.path.split(name)
            if base == _OPAQUE:
                removed.add(directory)
            elif base.startswith(_WHITEOUT):
                removed.add(os.path.join(directory, base[len(_WHITEOUT) :]))
            if not member.isdir():
                removed.add(name)
            if name not in wanted:
                continue
            settled.add(name)
            if member.isreg():
                content = tar.extractfile(member)
                assert content is not None
                digest = _digest(content)
                found.update(dict.fromkeys(wanted[name], digest))
            elif member.islnk():
                target = os.path.normpath(member.linkname).lstrip("/")
                aliases.setdefault(target, set()).update(wanted[name])
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


def _is_within(name: str, places: set[str]) -> bool:
    while name not in places:
        if not name:
            return False
        name = name.rpartition("/")[0]
    return True


def _digest(content: IO[bytes]) -> bytes:
    digest = hashlib.sha256()
    while data := content.read(_PART):
        digest.update(data)
    return digest.digest()


@contextmanager
def _opened(path: str) -> Iterator[tarfile.TarFile]:
    """Open a layer's tar, compressed or not, to be read once. Raises OSError, TarError."""
    with decompressed(path) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
        yield tar


@contextmanager
def decompressed(path: str) -> Iterator[BinaryIO]:
    """Open a blob; what zstd(1) has compressed is decompressed. Raises OSError, ``Error``."""
    with open(path, "rb") as file:
        if file.read(len(_ZSTD)) != _ZSTD:
            file.seek(0)
            yield file
            return
        try:
            process = subprocess.Popen(
                ["zstd", "-dcq", "--", path], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
            )
        except FileNotFoundError:
            raise Error("a layer is compressed with zstd, which is not installed") from None
        with process:
            assert process.stdout is not None
            try:
                yield process.stdout  # type: ignore[misc]
            finally:
                process.stdout.close()
