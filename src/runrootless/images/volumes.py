"""The volumes of an image: directories of the bundle that are mounted in its root file system.

conversion.md of the OCI image specification, "Config.Volumes": mounts, so that data of
applications is not written to the root file system, seeded with what the image has there; and
no part of new images. They are in ``volumes``, bound by paths that are relative to the bundle.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from runrootless.bundle import json_file
from runrootless.errors import Error, one_line
from runrootless.images import own_namespace
from runrootless.images.layer import write_tarball
from runrootless.images.new_file import NewFile
from runrootless.images.new_image import writer
from runrootless.images.pack import Archive
from runrootless.images.places import Places, clean
from runrootless.images.places_of_bundle import root_of, side_stores_of
from runrootless.images.read_tree import Tree
from runrootless.images.records import Records
from runrootless.images.streams import Limit, Stream
from runrootless.images.tar_stream import Tar
from runrootless.images.unpack import Unpacker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Mount = dict[str, Any]

_DIRECTORY = "volumes"
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def provide(
    bundle: str, names: Iterable[str], mounts: Sequence[Mount]
) -> tuple[list[Mount], list[str]]:
    """Make directories for volumes in a new bundle, with what its root file system has there.

    ``mounts`` are those that the bundle has besides. Return more of them, and lines about what
    is no volume. Raises Error, OSError.
    """
    bundle = os.path.realpath(bundle)
    rootfs = root_of(bundle)
    taken = [clean(os.fsencode(mount["destination"])) for mount in mounts]
    found: list[Mount] = []
    notes = []
    outer = None
    for path, name in sorted((clean(os.fsencode(name)), name) for name in names):
        if outer is not None and _is_within(path, outer):
            # It is in that one.
            continue
        if b"\0" in path or any(_is_within(path, one) or _is_within(one, path) for one in taken):
            notes.append(f"the volume {name} is left out: the bundle mounts something else there")
            continue
        source = f"{_DIRECTORY}/{len(found)}"
        problem = own_namespace.call(partial(_seed, bundle, rootfs, path, source))
        if problem:
            notes.append(f"the volume {name} stays in the root file system: {problem}")
            continue
        outer = path
        found.append(
            {
                "destination": name if name.startswith("/") else f"/{name}",
                "type": "bind",
                "source": source,
                "options": ["rbind", "rprivate"],
            }
        )
    return found, notes


def left_out(bundle: str) -> list[str]:
    """Return a line for each volume with something in it, which is in no image of a bundle."""
    try:
        mounts = json_file.read(os.path.join(bundle, "config.json")).get("mounts") or ()
        sources = {str(mount["destination"]): str(mount.get("source")) for mount in mounts}
    except (OSError, Error, AttributeError, KeyError, TypeError):
        return []
    return [
        f"what is in the volume {name} is left out"
        for name, source in sources.items()
        if source.startswith(f"{_DIRECTORY}/") and _has_something(os.path.join(bundle, source))
    ]


def _is_within(path: bytes, directory: bytes) -> bool:
    return not directory or path == directory or path.startswith(directory + b"/")


def _has_something(path: str) -> bool:
    try:
        return bool(os.listdir(path))
    except OSError:
        return True


def _seed(bundle: str, rootfs: str, path: bytes, source: str) -> str:
    """Make the directory of a volume; return why it cannot be one, empty if it can.

    Files are copied as they are for the container: with owners, devices and attributes.
    """
    os.umask(0)
    root, place = os.open(rootfs, _OPEN), os.open(bundle, _OPEN)
    try:
        there = Places(root, lambda above, made: None).find(path, True)
    except (Error, OSError) as error:
        return one_line(error)
    assert there is not None
    os.makedirs(os.path.join(bundle, source), 0o755)
    volume = os.open(os.path.join(bundle, source), _OPEN)
    with NewFile(bundle) as file:
        tree = Tree(f"/proc/self/fd/{there.fd}", side_stores_of(bundle, rootfs))
        write_tarball(Archive(writer(file.fd), for_tar=True), tree)
        what = f"the volume at {os.fsdecode(path)}"
        records = Records(place, volume)
        unpacker = Unpacker(volume, records)
        written = open(f"/proc/self/fd/{file.fd}", "rb", buffering=0)  # noqa: SIM115
        with Stream(written, what, Limit(sys.maxsize)) as stream:
            for _ in unpacker.unpack(Tar(stream, what)):
                pass
        unpacker.finish()
        records.close()
    return ""
