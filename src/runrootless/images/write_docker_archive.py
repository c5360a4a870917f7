"""Writing an image as ``docker save`` does: the Docker image specification 1.2, "Combined"."""

from __future__ import annotations

import os
import sys

from runrootless.errors import Error, named
from runrootless.images.new_file import NewFile
from runrootless.images.new_image import digest_of, encode, writer
from runrootless.images.pack import Archive
from runrootless.images.streams import DamagedError, Limit, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.images.new_image import Blob, NewImage

_MODE = 0o644
_PART = 1 << 20


def write(path: str, reference: str, image: NewImage) -> str:
    """Write an image into the file ``path``, in place of any other.

    ``reference`` is its name with the tag, or empty. Return the digest of its configuration,
    which is Docker's ID of it. Raises ``Error``, OSError.
    """
    directory, name = os.path.split(os.path.abspath(path))
    try:
        with NewFile(directory, path) as file:
            archive = Archive(writer(file.fd))
            layers = [f"{layer.diff_id.partition(':')[2]}.tar" for layer in image.layers]
            there = set()
            for layer, member in zip(image.layers, layers):
                if member not in there:
                    _add_layer(archive, member, layer, directory)
                there.add(member)
            config = f"{digest_of(image.config).partition(':')[2]}.json"
            archive.add_bytes(config.encode(), image.config, _MODE)
            tags = [reference] if reference else []
            manifest = [{"Config": config, "RepoTags": tags, "Layers": layers}]
            archive.add_bytes(b"manifest.json", encode(manifest), _MODE)
            archive.close()
            file.keep(name)
    except OSError as error:
        raise named(error, path) from None
    return digest_of(image.config)


def _add_layer(archive: Archive, member: str, layer: Blob, directory: str) -> None:
    """Add a layer's tar, not compressed, which tells whether it is the right one.

    How large it is comes first in an archive, so it is decompressed into a file before.
    """
    with NewFile(directory) as plain:
        size = _decompress(plain.fd, layer)
        archive.begin(member.encode(), size, _MODE)
        place = 0
        while data := os.pread(plain.fd, _PART, place):
            archive.put(data)
            place += len(data)
        archive.end()


def _decompress(fd: int, layer: Blob) -> int:
    """Write the tar of a layer to a descriptor; return its size. Raises ``Error``, OSError."""
    write = writer(fd)
    size = 0
    file = layer.open()
    try:
        with Stream(file, layer.path, Limit(sys.maxsize), diff_id=layer.diff_id) as stream:
            while data := stream.read(_PART):
                write(data)
                size += len(data)
            stream.finish()
    except DamagedError:
        raise Error(
            f"{layer.path} is damaged, and not the layer {layer.digest}: remove it; "
            "--squash writes the whole tree as one layer"
        ) from None
    return size
