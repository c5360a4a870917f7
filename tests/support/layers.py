"""Image layouts made by hand: layers as tarfile writes them, manifests and indexes as JSON."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REFERENCE = "org.opencontainers.image.ref.name"

MTIME = 1_600_000_000

TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "character": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
}


@dataclass(frozen=True)
class File:
    """One entry of a layer."""

    name: str
    kind: str = "file"
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    mtime: float = MTIME
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


def directory(name: str, mode: int = 0o755, **other: Any) -> File:
    return File(name, "directory", mode=mode, **other)


def symlink(name: str, link: str, **other: Any) -> File:
    return File(name, "symlink", link=link, mode=0o777, **other)


def hard_link(name: str, link: str) -> File:
    return File(name, "link", link=link)


def whiteout(name: str) -> File:
    above, _, last = name.rpartition("/")
    return File(f"{above}/.wh.{last}" if above else f".wh.{last}")


def opaque(name: str) -> File:
    return File(f"{name}/.wh..wh..opq")


def tar(files: Iterable[File], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a layer's tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for file in files:
            entry = tarfile.TarInfo(file.name)
            entry.type = TYPES[file.kind]
            entry.mode, entry.uid, entry.gid, entry.mtime = (
                file.mode,
                file.uid,
                file.gid,
                file.mtime,
            )
            entry.linkname = file.link
            entry.devmajor, entry.devminor = file.device
            entry.size = len(file.content)
            if file.xattrs:
                entry.pax_headers = {
                    f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")
                    for name, value in file.xattrs.items()
                }
            archive.addfile(entry, io.BytesIO(file.content) if file.content else None)
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def compress(data: bytes, how: str) -> tuple[bytes, str]:
    """Return a compressed layer and its media type."""
    if how == "gzip":
        return gzip.compress(data, 1, mtime=0), f"{LAYER}+gzip"
    if how == "zstd":
        done = subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True)
        return done.stdout, f"{LAYER}+zstd"
    return data, LAYER


class Layout:
    """An image layout in a directory."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.makedirs(f"{path}/blobs/sha256", exist_ok=True)
        with open(f"{path}/oci-layout", "w") as file:
            json.dump({"imageLayoutVersion": "1.0.0"}, file)
        self._images: list[dict[str, Any]] = []
        self._write_index()

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Keep a blob; return its descriptor."""
        with open(self.path_of(digest(data)), "wb") as file:
            file.write(data)
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def path_of(self, of: str) -> str:
        return f"{self.path}/blobs/{of.replace(':', '/')}"

    def manifest(
        self,
        layers: Sequence[bytes],
        config: Mapping[str, Any] | None = None,
        how: Sequence[str] | str = "gzip",
        architecture: str = "amd64",
    ) -> dict[str, Any]:
        """Keep a manifest with these layers' tars; return its descriptor."""
        ways = [how] * len(layers) if isinstance(how, str) else how
        document = {
            "architecture": architecture,
            "os": "linux",
            "created": "2024-01-02T03:04:05Z",
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(json.dumps(document).encode(), CONFIG),
            "layers": [
                self.blob(*compress(layer, way)) for layer, way in zip(layers, ways, strict=True)
            ],
        }
        return self.blob(json.dumps(manifest).encode(), MANIFEST)

    def index(self, manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Keep an index of manifests, each with its platform; return its descriptor."""
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
        return self.blob(json.dumps(document).encode(), INDEX)

    def tag(self, name: str, descriptor: Mapping[str, Any]) -> "Layout":
        """Give an image a name."""
        self._images.append({**descriptor, "annotations": {REFERENCE: name}})
        self._write_index()
        return self

    def image(self, name: str) -> dict[str, Any]:
        """Return the descriptor of the image of a name."""
        found = next(one for one in self._images if one["annotations"][REFERENCE] == name)
        return {key: value for key, value in found.items() if key != "annotations"}

    def manifest_of(self, name: str) -> dict[str, Any]:
        """Return the manifest of a name."""
        manifest: dict[str, Any] = json.loads(self.read(self.image(name)))
        return manifest

    def read(self, descriptor: Mapping[str, Any]) -> bytes:
        """Return a blob."""
        with open(self.path_of(descriptor["digest"]), "rb") as file:
            return file.read()

    def add(self, name: str, layers: Sequence[Iterable[File]], **other: Any) -> "Layout":
        """Add an image of these layers."""
        return self.tag(name, self.manifest([tar(layer) for layer in layers], **other))

    def _write_index(self) -> None:
        with open(f"{self.path}/index.json", "w") as file:
            json.dump({"schemaVersion": 2, "manifests": self._images}, file)
