"""The tar of a root file system, as if it were an image of one layer."""

from __future__ import annotations

import json
import os
import re
import stat

from runrootless.errors import Error
from runrootless.images import reference
from runrootless.images.image import Descriptor, Image, Layer, Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

_ENDS = re.compile(r"\.(?:tar(?:\.\w+)?|t?(?:gz|xz|zst|bz2))$")
_DIRECTORIES = {"bin", "etc", "lib", "sbin", "usr"}


def tar_image(path: str, platform: Platform, said: str) -> Image:
    """Return the image of a tar, of standard input where it is ``-``. Raises Error.

    ``said`` is what the user has said, which may not have meant a path.
    """
    if path != "-":
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            advice = ""
            if reference.is_name(said) and not _ENDS.search(said):
                advice = f": for an image of a registry say docker://{said}"
            raise Error(f"{path}: {error.strerror}{advice}") from None
        if stat.S_ISDIR(mode):
            raise Error(f"{path} is a directory, and no tar: for an image layout say oci:{path}")

    def open_tar() -> BinaryIO:
        if path == "-":
            return os.fdopen(os.dup(0), "rb", buffering=0)
        return open(path, "rb", buffering=0)

    return image_of("standard input" if path == "-" else path, platform, open_tar)


def image_of(
    source: str,
    platform: Platform,
    open_tar: Callable[[], BinaryIO],
    check: Callable[[], None] = lambda: None,
) -> Image:
    """Return the image of a tar that ``open_tar`` opens, of which nothing is known.

    ``check`` is as an image has it.
    """
    config = {
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    layer = Layer(Descriptor("", -1), "", open_tar)
    return Image(source, platform, json.dumps(config).encode(), [layer], check=check)


def require_root(directory: int, source: str) -> None:
    """Raise Error where what was unpacked in a new bundle is an image, and no root file system."""
    names = os.listdir(f"/proc/self/fd/{directory}/rootfs")
    for name, kind in (("oci-layout", "oci-archive"), ("manifest.json", "docker-archive")):
        if name in names and not _DIRECTORIES.intersection(names):
            raise Error(f"{source} has an image, and no root file system: say {kind}:{source}")
