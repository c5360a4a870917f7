"""Images by skopeo(1), which knows registries, their configuration and credentials."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile

from runrootless.errors import Error
from runrootless.images import image, write_layout
from runrootless.images.image import Image, Platform
from runrootless.images.layout import Directory, Layout
from runrootless.linux.process import set_parent_death_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrootless.images.cache import Cache
    from runrootless.images.image import Descriptor
    from runrootless.images.new_image import NewImage
    from runrootless.images.progress import Progress
    from runrootless.images.reference import Name

_PROGRAM = "skopeo"
# What it says of a registry without TLS, or with a certificate that nobody knows.
_NO_TLS = ("server gave HTTP response to HTTPS client", "x509: ")
_TAG = "image"


def is_there() -> bool:
    """Return whether skopeo is installed."""
    return shutil.which(_PROGRAM) is not None


class Skopeo:
    """The images of a name. ``tls_verify`` is None where the configuration is to say."""

    def __init__(
        self, name: Name, cache: Cache, tls_verify: bool | None, certificates: str
    ) -> None:
        self._image = name
        self._cache = cache
        self._tls_verify = tls_verify
        self._certificates = certificates

    def manifest(self, reference: str) -> bytes:
        """Return a manifest or an index as it is stored. Raises Error."""
        return _run("inspect", "--raw", *self._flags(""), self._name(reference))

    def config(self, manifest: str) -> bytes:
        """Return the configuration of a manifest. Raises Error."""
        words = ["inspect", "--config", "--raw", *self._flags("")]
        return _run(*words, self._name(manifest))

    def fetch(self, manifest: str, blobs: Sequence[Descriptor], progress: Progress) -> None:
        """Put layers into the cache. Raises Error."""
        progress.begin("fetching", sum(blob.size for blob in blobs), of="skopeo")
        document = image.parse_json(
            self._cache.read(image.Descriptor(manifest, -1)),
            f"the manifest of {self._image}",
        )
        is_oci = document.get("mediaType", image.MANIFESTS[0]) == image.MANIFESTS[0]
        with tempfile.TemporaryDirectory(prefix="skopeo-", dir=self._cache.path) as directory:
            # Blobs that are there are not fetched again.
            to = f"oci:{directory}/layout:image"
            words = ["--dest-shared-blob-dir", self._cache.blobs, *self._flags("src-")]
            if is_oci:
                # Else layers that are not compressed would be.
                words.append("--preserve-digests")
            _run("copy", "--quiet", *words, self._name(manifest), to)
            if all(map(self._cache.has, blobs)):
                return
            # Docker's manifests cannot be in a layout, which changes such layers.
            to = f"dir:{directory}/files"
            words = ["--preserve-digests", *self._flags("src-")]
            _run("copy", "--quiet", *words, self._name(manifest), to)
            for blob in blobs:
                path = os.path.join(directory, "files", blob.digest.partition(":")[2])
                if os.path.exists(path):
                    os.rename(path, self._cache.path_of(blob.digest))

    def push(self, image: NewImage) -> None:
        """Give an image to the registry, under the name's tag. Raises Error, OSError."""
        # Besides the layers of before, there may be large ones.
        place = os.environ.get("TMPDIR") or "/var/tmp"
        with tempfile.TemporaryDirectory(prefix="runrootless-push-", dir=place) as directory:
            write_layout.write(directory, _TAG, image)
            words = ["copy", "--quiet", "--preserve-digests", *self._flags("dest-")]
            try:
                _run(*words, f"oci:{directory}:{_TAG}", f"docker://{self._image}")
            except Error as error:
                raise Error(f"cannot push {self._image}: {error}") from None

    def _name(self, reference: str) -> str:
        return f"docker://{self._image.at(reference)}"

    def _flags(self, prefix: str) -> list[str]:
        flags = []
        if self._tls_verify is not None:
            flags.append(f"--{prefix}tls-verify={'true' if self._tls_verify else 'false'}")
        if self._certificates:
            flags.append(f"--{prefix}cert-dir={self._certificates}")
        return flags


def _run(*words: str) -> bytes:
    """Run skopeo and return what it prints. Raises Error with what it says otherwise."""
    try:
        done = subprocess.run(
            [_PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            preexec_fn=lambda: set_parent_death_signal(signal.SIGTERM),
        )
    except OSError as error:
        raise Error(
            f"cannot execute skopeo: {error.strerror}: install it, or say --transport oras"
        ) from None
    if done.returncode:
        reason = _reason(done.stderr.decode("utf-8", "replace"))
        if any(sign in reason for sign in _NO_TLS):
            reason += ": say --tls-verify=false, or have it insecure in registries.conf"
        raise Error(f"skopeo: {reason}")
    return done.stdout


def _reason(text: str) -> str:
    """Return what skopeo's log says that is wrong."""
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else "it failed, and says nothing"
    _, found, message = last.partition(' msg="')
    if found:
        last = message.removesuffix('"').replace('\\"', '"').replace("\\n", " ")
    return last


def storage_image(name: str, source: str, cache: Cache, progress: Progress) -> Image:
    """Return an image of podman's or buildah's, whose blobs are copied into the cache.

    Raises Error.
    """
    if not is_there():
        raise Error(f"{source} takes skopeo: apt-get install skopeo")
    progress.begin(f"copying {name}", of=_PROGRAM)
    with tempfile.TemporaryDirectory(prefix="skopeo-", dir=cache.path) as directory:
        words = ["--dest-shared-blob-dir", cache.blobs, f"containers-storage:{name}"]
        _run("copy", "--quiet", *words, f"oci:{directory}/layout:{_TAG}")
        store = Directory(f"{directory}/layout", cache.path)
        return Layout(store, source, cache.discard).image(_TAG, Platform.here())
