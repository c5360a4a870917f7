"""The volumes of an image: directories of the bundle that are mounted in its root file system.

conversion.md of the OCI image specification, "Config.Volumes": mounts, so that data of
applications is not written to the root file system, seeded with what the image has there; and
no part of new images. They are in ``volumes``, bound by paths that are relative to the bundle.
"""

from __future__ import annotations

import os
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
    from collections.abc import Collection, Sequence
    from typing import Any

    Mount = dict[str, Any]

_DIRECTORY = "volumes"
_LIMIT = 1000
"""How many volumes an image may have: the kernel, too, has a limit for mounts."""

# As many as the kernel follows: path_resolution(7).
_SYMLINKS = 40
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def provide(
    bundle: str, names: Collection[str], mounts: Sequence[Mount], limit: Limit
) -> tuple[list[Mount], list[str]]:
    """Make directories for volumes in a new bundle, with what its root file system has there.

    ``mounts`` are those that the bundle has besides, ``limit`` counts what is copied. Return
    more mounts, and lines about what is no volume. Raises Error, OSError.
    """
    if len(names) > _LIMIT:
        raise Error(f"the image has {len(names)} volumes: more than {_LIMIT} are not made")
    bundle = os.path.realpath(bundle)
    rootfs = root_of(bundle)
    taken = [clean(os.fsencode(mount["destination"])) for mount in mounts]
    notes: list[str] = []
    wanted: dict[bytes, str] = {}
    for path, name in sorted((clean(os.fsencode(name)), name) for name in names):
        if b"\0" in path or any(_overlap(path, one) for one in taken):
            notes.append(_taken(name))
        else:
            wanted.setdefault(path, name)
    work = partial(_resolve, bundle, rootfs, list(wanted), taken)
    found: list[Mount] = []
    resolved = own_namespace.call(work) if wanted else ([], [])
    places = [os.fsencode(place) for place in resolved[0]]
    inside: dict[bytes, bytes] = {}
    by_place = sorted(zip(places, wanted.items(), resolved[1]))
    for place, (path, name), problem in by_place:
        if problem:
            notes.append(f"the volume {name} stays in the root file system: {problem}")
            continue
        if any(_overlap(place, os.fsencode(one)) for one in resolved[2]):
            notes.append(_taken(name))
            continue
        outer = next((outer for outer in inside if _is_within(place, outer)), None)
        if outer is not None:
            # It is in that one, which is seen by the names where no symlink leads there.
            if not _is_within(path, inside[outer]):
                notes.append(
                    f"the volume {name} is left out: it is in /{os.fsdecode(inside[outer])}"
                )
            continue
        inside[place] = path
        source = f"{_DIRECTORY}/{len(found)}"
        limit.used = own_namespace.call(partial(_seed, bundle, rootfs, place, source, limit))
        found.append(
            {
                "destination": f"/{os.fsdecode(path)}",
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


def _taken(name: str) -> str:
    return f"the volume {name} is left out: the bundle mounts something else there"


def _is_within(path: bytes, directory: bytes) -> bool:
    return not directory or path == directory or path.startswith(directory + b"/")


def _overlap(one: bytes, other: bytes) -> bool:
    return _is_within(one, other) or _is_within(other, one)


def _has_something(path: str) -> bool:
    try:
        return bool(os.listdir(path))
    except OSError:
        return True


def _resolve(
    bundle: str, rootfs: str, paths: Sequence[bytes], taken: Sequence[bytes]
) -> tuple[list[str], list[str], list[str]]:
    """Make the directories of volumes in the root file system, where there are none.

    Return where each is, without symlinks from its root, why it cannot be a volume, empty if
    it can, and where the mounts ``taken`` are.
    """
    os.umask(0)
    root, place = os.open(rootfs, _OPEN), os.open(bundle, _OPEN)
    records = Records(place, root)
    places = Places(root, records.inherit)
    where, problems = [], []
    for path in paths:
        found, problem = b"", ""
        try:
            there = places.find(path, True)
            assert there is not None
            found = there.path
        except (Error, OSError) as error:
            problem = one_line(error)
        where.append(os.fsdecode(found))
        problems.append(problem)
    others = [os.fsdecode(_place_of_mount(places, path)) for path in taken]
    records.close()
    return where, problems, others


def _place_of_mount(places: Places, path: bytes) -> bytes:
    """Return where in a root file system a mount is going to be, of a file or a directory."""
    for _ in range(_SYMLINKS):
        above, _, name = path.rpartition(b"/")
        try:
            there = places.find(path, False)
            if there is not None:
                return there.path
            there = places.find(above, False)
            if there is None:
                break
            path = os.path.join(there.path, name)
            target = os.readlink(name, dir_fd=there.fd)
        except (Error, OSError):
            break
        path = target.lstrip(b"/") if target.startswith(b"/") else there.path + b"/" + target
    return clean(path)


def _seed(bundle: str, rootfs: str, path: bytes, source: str, limit: Limit) -> int:
    """Make the directory of a volume, and return how much has been written by then.

    Files are copied as they are for the container: with owners, devices and attributes.
    """
    os.umask(0)
    root, place = os.open(rootfs, _OPEN), os.open(bundle, _OPEN)
    there = Places(root, lambda above, made: None).find(path, False)
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
        with Stream(written, what, limit) as stream:
            for _ in unpacker.unpack(Tar(stream, what)):
                pass
        unpacker.finish()
        records.close()
    return limit.used
