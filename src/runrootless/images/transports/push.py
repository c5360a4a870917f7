"""Giving an image to a registry: by skopeo(1), or by the Python client ``oras``."""

from __future__ import annotations

import os
import tempfile

from runrootless.errors import Error
from runrootless.images import write_layout
from runrootless.images.transports import skopeo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.images.destination import Destination
    from runrootless.images.new_image import NewImage

_TAG = "image"


def require_transport() -> None:
    """Raise ``Error`` unless there is a program, or a module, that can give images away."""
    if not skopeo.is_there():
        from importlib.util import find_spec

        if find_spec("oras") is None:
            raise Error(
                "images are pushed by skopeo, which is not installed, or by the Python package "
                "oras: pip install 'runrootless[images]'"
            )


def push(destination: Destination, image: NewImage, verifies: bool = True) -> str:
    """Give an image to a registry; return the digest of its manifest.

    Without ``verifies`` the registry's certificate is not checked, and it may have none. Raises
    ``Error``, OSError.
    """
    # Besides the layers of before, there may be large ones.
    with tempfile.TemporaryDirectory(prefix="runrootless-push-", dir=_place()) as directory:
        digest = write_layout.write(directory, _TAG, image)
        if skopeo.is_there():
            _push_by_skopeo(destination, directory, verifies)
        else:
            from runrootless.images.transports import push_by_oras

            push_by_oras.push(destination, directory, image, verifies)
    return digest


def _place() -> str:
    return os.environ.get("TMPDIR") or "/var/tmp"


def _push_by_skopeo(destination: Destination, directory: str, verifies: bool) -> None:
    options = [] if verifies else ["--dest-tls-verify=false"]
    try:
        skopeo.run(
            *("copy", "--quiet", "--preserve-digests", *options),
            *(f"oci:{directory}:{_TAG}", f"docker://{destination.reference}"),
        )
    except Error as error:
        raise Error(f"cannot push {destination.reference}: {error}") from None
