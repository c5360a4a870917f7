"""What an image is to the rest of the package, and how its JSON is read.

The OCI image specification: manifest.md, image-index.md, config.md, descriptor.md. Docker's own
media types say the same in the members that are looked at.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial

from runrootless.errors import Error
from runrootless.images.streams import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, BinaryIO

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
JSON_LIMIT = 4 << 20
"""How large a manifest or a configuration may be, in bytes: what registries take themselves."""

_LAYERS_LIMIT = 1024
_MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
# What the processors of one architecture run as well, as a rule.
_RUN_AS_WELL = {"amd64": "386", "arm64": "arm"}


@dataclass(frozen=True)
class Platform:
    """What an image is for, in the words of Go's GOOS and GOARCH."""

    os: str
    architecture: str
    variant: str = ""

    @staticmethod
    def here() -> Platform:
        """Return that of this machine."""
        machine = os.uname().machine
        return Platform(
            "linux", _MACHINES.get(machine, machine), "v7" if machine == "armv7l" else ""
        )

    @staticmethod
    def parse(text: str) -> Platform:
        """Return that which ``os/architecture[/variant]``, or an architecture alone, says.

        Raises Error.
        """
        parts = text.split("/")
        if text in _MACHINES.values():
            parts.insert(0, "linux")
        if not 1 < len(parts) <= 3 or not all(parts):
            raise Error(
                f"--platform takes OS/ARCHITECTURE[/VARIANT], linux/arm64 for example, not {text}"
            )
        return Platform(*parts)

    def is_met_by(self, found: Platform) -> bool:
        """Return whether an image for another platform is what somebody wants who says this one."""
        return (self.os, self.architecture) == (found.os, found.architecture) and (
            not self.variant or not found.variant or self.variant == found.variant
        )

    def runs(self, found: Platform) -> bool:
        """Return whether a machine of this platform runs, as a rule, what is for another one."""
        return self.os == found.os and (
            found.architecture in (self.architecture, _RUN_AS_WELL.get(self.architecture))
        )

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True)
class Descriptor:
    """What a blob is, how large (-1 where nothing says so), and its digest."""

    digest: str
    size: int
    media_type: str = ""

    @staticmethod
    def parse(value: Any, what: str) -> Descriptor:
        """Return what a JSON value says. Raises Error."""
        value = require_object(value, what)
        digest, size = value.get("digest"), value.get("size")
        if not isinstance(digest, str) or not isinstance(size, int) or size < 0:
            raise Error(f"{what} is no image's: a descriptor has no digest or no size")
        Digest(digest)
        media_type = value.get("mediaType")
        return Descriptor(digest, size, media_type if isinstance(media_type, str) else "")


@dataclass(frozen=True)
class Layer:
    """A layer: ``open`` returns what is stored, of which ``digest`` is (empty where unknown).

    ``discard`` is called when it is found to be damaged.
    """

    descriptor: Descriptor
    diff_id: str
    open: Callable[[], BinaryIO]
    discard: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Image:
    """An image that can be unpacked.

    ``manifest`` and ``config`` are as they are stored; without a manifest the first is empty.
    ``layout`` is the path of the image layout that has its blobs, a directory or a tar, and empty
    where they are in the cache or nowhere.
    ``check`` is called when it was unpacked, or could not be: it raises Error where what makes
    it has failed.
    """

    source: str
    platform: Platform
    config: bytes
    layers: Sequence[Layer]
    manifest: bytes = b""
    manifest_descriptor: Descriptor | None = None
    config_descriptor: Descriptor | None = None
    layout: str = ""
    check: Callable[[], None] = lambda: None


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """Return the object that a JSON document is. Raises Error."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Error(f"{what} is not valid JSON: {error}") from None
    return require_object(value, what)


def require_object(value: Any, what: str) -> dict[str, Any]:
    """Return a value that is an object. Raises Error."""
    if not isinstance(value, dict):
        raise Error(f"{what} is no image's: there is something else where an object should be")
    return value


def require_list(value: Any, what: str) -> list[Any]:
    """Return a value that is a list; null is an empty one. Raises Error."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Error(f"{what} is no image's: there is something else where a list should be")
    return value


def is_index(manifest: dict[str, Any], media_type: str) -> bool:
    """Return whether a document is a list of manifests for several platforms."""
    kind = manifest.get("mediaType") or media_type
    return kind in INDEXES or (kind not in MANIFESTS and "manifests" in manifest)


def choose(index: dict[str, Any], platform: Platform, what: str) -> Descriptor:
    """Return the manifest for a platform. Raises Error that names those that there are."""
    there: list[str] = []
    fitting: list[tuple[bool, Descriptor]] = []
    for one in require_list(index.get("manifests"), what):
        one = require_object(one, what)
        descriptor = Descriptor.parse(one, what)
        about = one.get("platform")
        if not isinstance(about, dict):
            if one.get("artifactType") is None and descriptor.media_type in (
                "",
                *MANIFESTS,
                *INDEXES,
            ):
                fitting.append((False, descriptor))
            continue
        found = Platform(
            str(about.get("os", "")),
            str(about.get("architecture", "")),
            str(about.get("variant", "")),
        )
        there.append(str(found))
        if not platform.is_met_by(found):
            continue
        fitting.append((found.variant == platform.variant, descriptor))
    # Of several the first one counts, but those that fit exactly come before.
    for exactly in (True, False):
        for is_exact, descriptor in fitting:
            if is_exact == exactly:
                return descriptor
    raise Error(
        f"{what} has nothing for {platform}, but for {', '.join(there) or 'no platform'}: "
        "say --platform"
    )


def compose(
    source: str,
    manifest: bytes,
    digest: str,
    get: Callable[[Descriptor], bytes],
    opener: Callable[[Descriptor], BinaryIO],
    discard: Callable[[str], None] = lambda digest: None,
) -> Image:
    """Return the image of a manifest: ``get`` returns a small blob, ``opener`` opens one.

    ``discard`` is told the digest of a layer that is found to be damaged. Raises Error for what
    is no image's manifest.
    """
    what = f"the manifest of {source}"
    document = parse_json(manifest, what)
    if document.get("schemaVersion") != 2 or not document.get("config"):
        raise Error(f"{what} is of a kind that is too old, or no image's: have it made anew")
    config_descriptor = Descriptor.parse(document["config"], what)
    descriptors = [
        Descriptor.parse(one, what) for one in require_list(document.get("layers"), what)
    ]
    config = get(config_descriptor)
    about = parse_json(config, f"the configuration of {source}")
    rootfs = require_object(about.get("rootfs") or {}, what)
    diff_ids = require_list(rootfs.get("diff_ids"), what)
    if len(diff_ids) != len(descriptors):
        raise Error(
            f"{what} has {len(descriptors)} layers, and its configuration {len(diff_ids)}: "
            "it is no image's, or damaged"
        )
    if len(descriptors) > _LAYERS_LIMIT:
        raise Error(f"{what} has {len(descriptors)} layers, more than {_LAYERS_LIMIT}")
    layers = []
    for descriptor, diff_id in zip(descriptors, diff_ids):
        Digest(str(diff_id))
        layers.append(
            Layer(
                descriptor,
                str(diff_id),
                partial(opener, descriptor),
                partial(discard, descriptor.digest),
            )
        )
    kind = document.get("mediaType")
    return Image(
        source,
        platform_of(about),
        config,
        layers,
        manifest,
        Descriptor(digest, len(manifest), kind if isinstance(kind, str) else MANIFESTS[0]),
        config_descriptor,
    )


def platform_of(config: dict[str, Any]) -> Platform:
    """Return what an image's configuration says that it is for."""
    return Platform(
        str(config.get("os") or "linux"),
        str(config.get("architecture") or Platform.here().architecture),
        str(config.get("variant") or ""),
    )
