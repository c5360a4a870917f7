"""OCI image layouts, in a directory or a tar: image-layout.md."""

from __future__ import annotations

import os
import stat

from runrootless.errors import Error
from runrootless.images import image
from runrootless.images.image import Descriptor, Image, Platform
from runrootless.images.streams import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO, Protocol

    class Store(Protocol):
        """Files by their names: a directory, or a tar."""

        def open(self, name: str) -> BinaryIO:
            """Open a file to read. Raises OSError."""


_REFERENCE = "org.opencontainers.image.ref.name"
_BLOBS = "blobs/"
_DEPTH = 4


class Directory:
    """Files in a directory; the blobs may be in another one, which has a directory of them."""

    def __init__(self, path: str, blobs: str = "") -> None:
        self._path = path
        self._blobs = blobs or path

    def open(self, name: str) -> BinaryIO:
        """Open a regular file to read. Raises OSError."""
        # What is a fifo is not waited for.
        path = os.path.join(self._blobs if name.startswith(_BLOBS) else self._path, name)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileNotFoundError(2, "it is no regular file", path)
        return os.fdopen(fd, "rb", buffering=0)


def blob_name(digest: str) -> str:
    """Return where a blob is in a layout."""
    algorithm, _, value = digest.partition(":")
    return f"{_BLOBS}{algorithm}/{value}"


def read_small(file: BinaryIO, what: str) -> bytes:
    """Return all of a file that is JSON, and close it. Raises Error for one that is too large."""
    with file:
        parts = []
        size = 0
        while data := file.read(1 << 16):
            parts.append(data)
            size += len(data)
            if size > image.JSON_LIMIT:
                raise Error(f"{what} has more than {image.JSON_LIMIT} bytes")
        return b"".join(parts)


def checked(data: bytes, descriptor: Descriptor, what: str) -> bytes:
    """Return what a blob is, if it is what its descriptor says. Raises Error."""
    digest = Digest(descriptor.digest)
    digest.update(data)
    if not digest.is_right() or descriptor.size not in (-1, len(data)):
        raise Error(f"{what} is not what {descriptor.digest} stands for: it is damaged")
    return data


class Layout:
    """An image layout; ``source`` names it in errors, ``discard`` is as ``compose`` has it."""

    def __init__(
        self, store: Store, source: str, discard: Callable[[str], None] = lambda digest: None
    ) -> None:
        self._store = store
        self._source = source
        self._discard = discard

    def image(self, reference: str, platform: Platform) -> Image:
        """Return the image of a name, or the only one where it is empty. Raises Error."""
        index = image.parse_json(self._small("index.json"), f"the index of {self._source}")
        descriptor = self._of_name(index, reference)
        for _ in range(_DEPTH):
            data = self._blob(descriptor)
            document = image.parse_json(data, f"{descriptor.digest} of {self._source}")
            if not image.is_index(document, descriptor.media_type):
                return image.compose(
                    self._source, data, descriptor.digest, self._blob, self._open, self._discard
                )
            descriptor = image.choose(document, platform, self._source)
        raise Error(f"{self._source} has indexes of indexes: choose one of their manifests")

    def _of_name(self, index: dict[str, Any], reference: str) -> Descriptor:
        names: list[str] = []
        found: list[Descriptor] = []
        for one in image.require_list(index.get("manifests"), self._source):
            one = image.require_object(one, self._source)
            about = one.get("annotations")
            name = about.get(_REFERENCE) if isinstance(about, dict) else None
            if isinstance(name, str):
                names.append(name)
            if not reference or name == reference or one.get("digest") == reference:
                found.append(Descriptor.parse(one, self._source))
        if len({one.digest for one in found}) == 1:
            return found[0]
        there = ", ".join(names) or "none with a name"
        if not found:
            raise Error(f"{self._source} has no image {reference!r}; there are: {there}")
        raise Error(f"{self._source} has several images ({there}): add :NAME")

    def _blob(self, descriptor: Descriptor) -> bytes:
        what = f"{descriptor.digest} of {self._source}"
        return checked(self._small(blob_name(descriptor.digest)), descriptor, what)

    def _small(self, name: str) -> bytes:
        try:
            return read_small(self._store.open(name), f"{name} of {self._source}")
        except OSError as error:
            raise self._missing(name, error) from None

    def _open(self, descriptor: Descriptor) -> BinaryIO:
        name = blob_name(descriptor.digest)
        try:
            return self._store.open(name)
        except OSError as error:
            raise self._missing(name, error) from None

    def _missing(self, name: str, error: OSError) -> Error:
        return Error(f"{self._source} has no {name} ({error.strerror}): is it an image layout?")
