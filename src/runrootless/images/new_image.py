"""An image that is about to be written."""

from __future__ import annotations

import hashlib
import json

from runrootless.bundle.json_file import write_all
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, BinaryIO

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
"""The media type of a layer that is made here."""

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_PART = 1 << 20
_OF_DOCKER = {
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": (
        "application/vnd.oci.image.layer.v1.tar+zstd"
    ),
}


class Blob:
    """A layer: ``digest``, ``diff_id``, ``size`` in bytes, and where its content is.

    That is a file by its ``path``, or one that is open as ``fd``.
    """

    __slots__ = ("_media_type", "diff_id", "digest", "fd", "path", "size")

    def __init__(
        self, digest: str, diff_id: str, size: int, media_type: str, path: str = "", fd: int = -1
    ) -> None:
        self.digest = digest
        self.diff_id = diff_id
        self.size = size
        self._media_type = media_type
        self.path = path
        self.fd = fd

    @property
    def media_type(self) -> str:
        """The media type of the OCI image specification."""
        return _OF_DOCKER.get(self._media_type, self._media_type)

    def open(self) -> BinaryIO:
        """Open it to read. Raises OSError."""
        return open(self.path or f"/proc/self/fd/{self.fd}", "rb", buffering=0)

    def read(self, write: Callable[[bytes], object]) -> None:
        """Give all of it to ``write``. Raises ``Error`` if it is not what the digest says."""
        digest = hashlib.sha256()
        with self.open() as file:
            while data := file.read(_PART):
                digest.update(data)
                write(data)
        if self.digest != f"sha256:{digest.hexdigest()}":
            raise Error(
                f"{self.path} is damaged, and not the layer {self.digest}: remove it; "
                "--squash writes the whole tree as one layer"
            )


class NewImage:
    """What an image consists of: its configuration, and its layers, the lowest first."""

    media_type = _MANIFEST
    """Its manifest's."""

    __slots__ = ("config", "layers", "platform")

    def __init__(self, config: dict[str, Any], layers: Sequence[Blob]) -> None:
        self.platform = {
            key: config[key] for key in ("architecture", "os", "variant") if config.get(key)
        }
        self.config = encode(config)
        self.layers = layers

    def manifest(self) -> bytes:
        """Return its manifest: manifest.md of the OCI image specification."""
        return encode(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": descriptor(_CONFIG, self.config),
                "layers": [
                    {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
                    for layer in self.layers
                ],
            }
        )

    def entry(self) -> dict[str, Any]:
        """Return what an index says of it."""
        return {**descriptor(_MANIFEST, self.manifest()), "platform": self.platform}


def encode(value: Any) -> bytes:
    """Return a value as JSON, the same for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "replace"
    )


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    """Return the descriptor of a blob."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def digest_of(data: bytes) -> str:
    """Return the digest of a blob."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def writer(fd: int) -> Callable[[bytes], None]:
    """Return what writes all that it is given to a descriptor. It raises OSError."""
    return lambda data: write_all(fd, data)
