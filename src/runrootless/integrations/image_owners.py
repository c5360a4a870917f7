"""Giving the files of an image of podman's or buildah's the owners that its layers name.

For a caller with one mapped ID containers/storage cannot chown(2) what it unpacks; with
its option ``ignore_chown_errors`` it goes on, and every file is root's. Who owns them is
still in the headers of each layer's tar, which it keeps. From there it is recorded in
the layer itself, once, before the first container with that layer starts.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISREG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The ID of the layer up to which the owners are recorded, on the root of the files. It is
# not one of the attributes that the agent hides: runtimes look at it under `emulate` too.
_MARK = "user.runrootless-layer"
_DESCRIPTION = ".tar-split.gz"


class Files:
    """A directory of files and the layers that it was unpacked from.

    ``descriptions`` are the paths of the layers' tar-split files, the lowest first, and
    ``layer`` is the ID of the last one.
    """

    __slots__ = ("descriptions", "directory", "layer")

    def __init__(self, directory: str, layer: str, descriptions: list[str]) -> None:
        self.directory = directory
        self.layer = layer
        self.descriptions = descriptions


def restore(rootfs: str) -> bool:
    """Record the owners of the files of a container's root file system.

    Returns whether it is in a storage of containers/storage; nothing happens if not, or if
    that is done already. Where the storage may not be written to all stays root's. Raises
    ``Error`` if the description of a layer is damaged.
    """
    for name in _names(rootfs):
        found = _in_storage(name)
        if found is not None:
            _restore(found)
            return True
    return False


def restore_images(storage: str) -> None:
    """Record the owners of the files of all images in a storage of containers/storage.

    ``storage`` is its directory, the "graphroot". The rest is as with ``restore``.
    """
    _restore(_of_images(storage))


def _restore(found: Iterable[Files]) -> None:
    for files in found:
        if not _is_marked(files) and os.access(files.directory, os.W_OK):
            try:
                _record(files)
            except OSError:
                # A file system without attributes, or without space for them.
                break


def _in_storage(rootfs: str) -> Iterator[Files] | None:
    """Return what a root file system in a storage consists of, but for what is its own.

    ``None`` if it is not in one.
    """
    parent, name = os.path.split(rootfs)
    if name == "merged" and os.path.exists(f"{parent}/lower"):
        return _of_overlay(parent)
    if parent.endswith("/vfs/dir"):
        return _of_vfs(rootfs, os.path.dirname(parent), name)
    return None


def _of_overlay(container: str) -> Iterator[Files]:
    """Yield the layers below a container of the driver "overlay", each with its own files."""
    home = os.path.dirname(container)
    with open(f"{container}/lower") as file:
        lower = file.read().split(":")
    for link in lower:
        directory = os.path.realpath(os.path.join(home, link))
        layer = os.path.basename(os.path.dirname(directory))
        yield Files(directory, layer, [_description(home, layer)])


def _of_vfs(container: str, home: str, container_layer: str) -> Iterator[Files]:
    """Yield the copies that the driver "vfs" makes of all the files of an image.

    The container is one. The image's own comes first: the next container is a copy of it.
    """
    parents = _parents(home)
    layer = parents.get(container_layer, "")
    if layer:
        chain = _chain(home, layer, parents)
        yield Files(f"{home}/dir/{layer}", layer, chain)
        yield Files(container, layer, chain)


def _of_images(storage: str) -> Iterator[Files]:
    """Yield what was unpacked from a layer's tar, in a storage of either driver."""
    for driver, place in (("overlay", "overlay/{}/diff"), ("vfs", "vfs/dir/{}")):
        home = f"{storage}/{driver}"
        parents = _parents(home) if driver == "vfs" else {}
        try:
            names = os.listdir(f"{home}-layers")
        except OSError:
            continue
        for name in names:
            if name.endswith(_DESCRIPTION):
                layer = name.removesuffix(_DESCRIPTION)
                yield Files(f"{storage}/{place.format(layer)}", layer, _chain(home, layer, parents))


def _parents(home: str) -> dict[str, str]:
    """Return the layer that each layer of a driver lies upon, if it lies upon one."""
    import json

    parents: dict[str, str] = {}
    for name in ("layers.json", "volatile-layers.json"):
        try:
            with open(f"{home}-layers/{name}") as file:
                parents.update((layer["id"], layer.get("parent", "")) for layer in json.load(file))
        except (OSError, ValueError):
            continue
    return parents


def _chain(home: str, layer: str, parents: dict[str, str]) -> list[str]:
    """Return the descriptions of a layer and of those that it lies upon, the lowest first."""
    chain: list[str] = []
    while layer and len(chain) <= len(parents):
        chain.append(_description(home, layer))
        layer = parents.get(layer, "")
    return chain[::-1]


def _description(home: str, layer: str) -> str:
    return f"{home}-layers/{layer}{_DESCRIPTION}"


def _is_marked(files: Files) -> bool:
    try:
        return os.getxattr(files.directory, _MARK) == files.layer.encode()
    except OSError:
        return False


def _record(files: Files) -> None:
    """Record the owners of all files but root's. Raises ``OSError``, ``Error``."""
    owners: dict[str, tuple[int, int]] = {}
    for description in files.descriptions:
        _take(description, owners)
    _keep(files.directory, owners.items())
    os.setxattr(files.directory, _MARK, files.layer.encode())


def _take(description: str, owners: dict[str, tuple[int, int]]) -> None:
    """Change ``owners`` by what a layer brings: names to IDs, but for files of root's."""
    from runrootless.integrations import tar_split

    try:
        for name, uid, gid in tar_split.owners(description):
            name = os.path.normpath(name.lstrip("/"))
            if uid or gid:
                owners[name] = uid, gid
            else:
                owners.pop(name, None)
    except FileNotFoundError:
        # A layer that was not unpacked from a tar.
        pass


def _keep(directory: str, owners: Iterable[tuple[str, tuple[int, int]]]) -> None:
    from runrootless.bundle import rootfs
    from runrootless.emulation.owners.ownership import ATTRIBUTE
    from runrootless.emulation.stores.record import Record, encode

    for name, (uid, gid) in owners:
        try:
            place = rootfs.find(directory, name)
        except OSError:
            continue
        try:
            # Replaced by something else in a later layer.
            if place.mode is None or not (S_ISREG(place.mode) or S_ISDIR(place.mode)):
                continue
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
            file = os.open(place.name, flags, dir_fd=place.directory)
        finally:
            place.close()
        try:
            # What is there came with the layer, from a container of ours that was committed.
            os.setxattr(file, ATTRIBUTE, encode(Record(uid, gid)), os.XATTR_CREATE)
        except FileExistsError:
            pass
        finally:
            os.close(file)


def _names(rootfs: str) -> Iterator[str]:
    """Yield ``rootfs`` and the other names that it has by way of bind mounts.

    buildah mounts a container's root file system a second time, and names that.
    """
    rootfs = os.path.realpath(rootfs)
    yield rootfs
    status = os.stat(rootfs)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    mounts = [(root, point) for number, root, point in _mounts() if number == device]
    inside = ""
    longest = -1
    for root, point in mounts:
        rest = _below(rootfs, point)
        # The last of those on the same point hides the others.
        if rest is not None and len(point) >= longest:
            inside = os.path.normpath(root + rest)
            longest = len(point)
    for root, point in mounts:
        rest = _below(inside, root)
        if rest is not None:
            name = os.path.normpath(point + rest)
            if name != rootfs:
                yield name


def _below(path: str, directory: str) -> str | None:
    """Return what of ``path`` follows ``directory``, ``None`` if it is not below it."""
    if directory == "/":
        return path
    if path == directory or path.startswith(directory + "/"):
        return path[len(directory) :]
    return None


def _mounts() -> Iterator[tuple[str, str, str]]:
    """Yield device, root in the file system, and mount point: proc_pid_mountinfo(5)."""
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            _, _, device, root, point, *_ = line.split(b" ")
            yield device.decode(), _unescape(root), _unescape(point)


def _unescape(field: bytes) -> str:
    for character in b" \t\n\\":
        field = field.replace(b"\\%03o" % character, bytes([character]))
    return os.fsdecode(field)
