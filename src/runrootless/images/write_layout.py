"""Writing an image into an OCI image layout: image-layout.md of the OCI image specification.

The blobs come first, each whole before it has its name; the index, which alone tells that they
are there, comes last, in one piece, and under a lock of the directory.
"""

from __future__ import annotations

import fcntl
import os
import stat

from runrootless.bundle import json_file
from runrootless.errors import Error, named
from runrootless.images.new_file import NewFile, is_new
from runrootless.images.new_image import digest_of, encode, writer
from runrootless.images.snapshot import digest_of_content

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.images.new_image import Blob, NewImage

_LAYOUT, _INDEX = "oci-layout", "index.json"
_VERSION = encode({"imageLayoutVersion": "1.0.0"})
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_TAG = "org.opencontainers.image.ref.name"


def require_place(path: str) -> None:
    """Raise ``Error`` unless a directory is a layout, empty, or not there."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Error(f"cannot write an image layout into {path}: {error.strerror}") from None
    if any(not is_new(name) for name in names) and not os.path.isfile(os.path.join(path, _LAYOUT)):
        raise Error(f"{path} is no OCI image layout, and not empty: take another directory")


def write(path: str, tag: str, image: NewImage) -> str:
    """Write an image into the layout ``path``, made if need be, in place of what has the tag.

    Return the digest of its manifest. Raises ``Error``, OSError.
    """
    require_place(path)
    blobs = os.path.join(path, "blobs", "sha256")
    try:
        os.makedirs(path, exist_ok=True)
        # First, lest another that is written there meanwhile takes it for something else.
        if not os.path.exists(os.path.join(path, _LAYOUT)):
            _write(path, _LAYOUT, _VERSION)
        os.makedirs(blobs, exist_ok=True)
        for layer in image.layers:
            _write_layer(blobs, layer)
        manifest = image.manifest()
        for data in (image.config, manifest):
            _write(blobs, digest_of(data).partition(":")[2], data)
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            _write(path, _INDEX, encode(_with(_read_index(path), tag, image.entry())))
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise named(error, path) from None
    return digest_of(manifest)


def _write_layer(blobs: str, layer: Blob) -> None:
    name = layer.digest.partition(":")[2]
    if _is_there(os.path.join(blobs, name), layer):
        return
    with NewFile(blobs) as file:
        layer.read(writer(file.fd))
        file.keep(name)


def _is_there(path: str, layer: Blob) -> bool:
    """Return whether a file is all of a layer, and not another's that was cut off or changed."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(file)
        return (
            stat.S_ISREG(status.st_mode)
            and status.st_size == layer.size
            and f"sha256:{digest_of_content(file).hex()}" == layer.digest
        )
    finally:
        os.close(file)


def _write(directory: str, name: str, data: bytes) -> None:
    with NewFile(directory) as file:
        writer(file.fd)(data)
        file.keep(name)


def _read_index(path: str) -> dict[str, Any]:
    name = os.path.join(path, _INDEX)
    try:
        index = json_file.read(name)
    except FileNotFoundError:
        return {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": []}
    if not isinstance(index, dict) or not isinstance(index.get("manifests", []), list):
        raise Error(f"{name} is no index of an OCI image layout")
    return index


def _with(index: dict[str, Any], tag: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Return an index in which one entry has the tag."""
    others = [
        other
        for other in index.get("manifests", [])
        if not (isinstance(other, dict) and (other.get("annotations") or {}).get(_TAG) == tag)
    ]
    return {**index, "manifests": [*others, {**entry, "annotations": {_TAG: tag}}]}
