"""How images come from a registry, and go there: by skopeo, or by a client in Python.

Both are behind one small interface, which puts blobs into the cache; which platform's image is
taken, and whether it is what its digests say, is seen to here.
"""

from __future__ import annotations

from runrootless.errors import Error
from runrootless.images import image, layout
from runrootless.images.image import Descriptor, Image, Platform
from runrootless.images.streams import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from runrootless.images.cache import Cache
    from runrootless.images.new_image import NewImage
    from runrootless.images.progress import Progress

    class Transport(Protocol):
        """What gets at the images of one name."""

        def manifest(self, reference: str) -> bytes:
            """Return the manifest or index of a tag or digest as it is stored. Raises Error."""

        def config(self, manifest: str) -> bytes:
            """Return the configuration of the manifest of this digest. Raises Error."""

        def fetch(self, manifest: str, blobs: Sequence[Descriptor], progress: Progress) -> None:
            """Put layers of the manifest of this digest into the cache. Raises Error."""

        def push(self, image: NewImage) -> None:
            """Give an image to the registry, under the name's tag. Raises Error, OSError."""


_DEPTH = 4


def get(
    transport: Transport,
    source: str,
    reference: str,
    platform: Platform,
    cache: Cache,
    progress: Progress,
) -> Image:
    """Return an image with all its blobs in the cache. Raises Error."""
    digest, data = _manifest(transport, source, reference, platform, cache)

    def small(descriptor: Descriptor) -> bytes:
        what = f"the configuration of {source}"
        if not cache.has(descriptor):
            if descriptor.size > image.JSON_LIMIT:
                raise Error(f"{what} has {descriptor.size} bytes")
            config = layout.checked(transport.config(digest), descriptor, what)
            cache.add(descriptor.digest, config)
        return cache.read(descriptor)

    found = image.compose(source, data, digest, small, cache.open, cache.discard)
    missing = {
        layer.descriptor.digest: layer.descriptor
        for layer in found.layers
        if not cache.has(layer.descriptor)
    }
    if missing:
        transport.fetch(digest, list(missing.values()), progress)
        for descriptor in missing.values():
            if not cache.has(descriptor):
                raise Error(f"{source}: the layer {descriptor.digest} could not be fetched")
    return found


def _manifest(
    transport: Transport, source: str, reference: str, platform: Platform, cache: Cache
) -> tuple[str, bytes]:
    """Return the digest of a manifest for a platform, and the manifest."""
    for _ in range(_DEPTH):
        data = None
        if ":" in reference:
            descriptor = Descriptor(reference, -1)
            if cache.has(descriptor):
                data = cache.read(descriptor)
        if data is None:
            data = transport.manifest(reference)
            if len(data) > image.JSON_LIMIT:
                raise Error(f"the manifest of {source} has {len(data)} bytes")
            if ":" in reference:
                layout.checked(data, Descriptor(reference, -1), f"the manifest of {source}")
        digest = reference if ":" in reference else _digest(data)
        document = image.parse_json(data, f"the manifest of {source}")
        cache.add(digest, data)
        if not image.is_index(document, ""):
            return digest, data
        reference = image.choose(document, platform, source).digest
        Digest(reference)
    raise Error(f"{source} has indexes of indexes: choose one of their manifests")


def _digest(data: bytes) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(data).hexdigest()}"
