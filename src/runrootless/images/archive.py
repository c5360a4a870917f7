"""Archives of images: what ``docker save`` writes, and image layouts in a tar."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from functools import partial

from runrootless.errors import Error
from runrootless.images import image, tar_stream
from runrootless.images.image import Descriptor, Image, Layer
from runrootless.images.layout import read_small
from runrootless.images.places import clean
from runrootless.images.streams import Digest, Limit, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_LINKS = 8
_GZIP_AND_OTHERS = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh")


class Archive:
    """The files in a tar, which are read in any order.

    One that is compressed, or cannot be sought in, is unpacked into a file without a name in
    ``directory`` first.
    """

    def __init__(self, path: str, directory: str, limit: Limit) -> None:
        """Raises Error for what is no tar, and OSError."""
        self._path = path
        file: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115 - kept
        beginning = file.read(6) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
        if not beginning or beginning.startswith(_GZIP_AND_OTHERS):
            if beginning:
                file.seek(0)
            file = _plain(file, path, directory, limit)
        self._fd = file
        self._size = os.fstat(file.fileno()).st_size
        self._files: dict[bytes, tuple[int, int]] = {}
        self._links: dict[bytes, bytes] = {}
        self._read_names()

    def open(self, name: str) -> BinaryIO:
        """Open a file to read. Raises OSError: FileNotFoundError."""
        try:
            path = clean(os.fsencode(name))
        except UnicodeEncodeError:
            # Half a character, which no name has.
            raise FileNotFoundError(2, "No such file in the archive", name) from None
        for _ in range(_LINKS):
            if path not in self._links:
                break
            path = self._links[path]
        found = self._files.get(path)
        if found is None:
            raise FileNotFoundError(2, "No such file in the archive", name)
        return _Part(self._fd.fileno(), *found)  # type: ignore[return-value]

    def _read_names(self) -> None:
        source = _Seekable(self._fd.fileno(), self._size)
        tar = tar_stream.Tar(source, self._path)
        for entry in tar.entries():
            name = clean(entry.name)
            if entry.kind == tar_stream.REGULAR and entry.parts is None:
                self._files[name] = source.offset, entry.size
            elif entry.kind == tar_stream.SYMLINK:
                # Of older versions of docker: a layer that is there under another name.
                above = name.rpartition(b"/")[0]
                link = entry.link if entry.link.startswith(b"/") else above + b"/" + entry.link
                self._links[name] = clean(link)
            elif entry.kind == tar_stream.LINK:
                self._links[name] = clean(entry.link)


class _Seekable:
    """What a tar is read from where what is not needed can be passed over."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self.offset = 0

    def read(self, size: int) -> bytes:
        data = os.pread(self._fd, size, self.offset)
        while 0 < len(data) < size:
            more = os.pread(self._fd, size - len(data), self.offset + len(data))
            if not more:
                break
            data += more
        self.offset += len(data)
        return data

    def skip(self, size: int) -> int:
        """Pass over so many bytes; return how many there were."""
        size = min(size, self._size - self.offset)
        self.offset += size
        return size


class _Part(io.RawIOBase):
    """A part of a file, which is read once."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = os.dup(fd)
        self._offset = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), self._end - self._offset)
        data = os.pread(self._fd, size, self._offset)
        buffer[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def _plain(file: BinaryIO, path: str, directory: str, limit: Limit) -> BinaryIO:
    """Return a file with what comes of decompressing one, which is closed."""
    made = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - returned
    with Stream(file, path, limit) as stream:
        while data := stream.read(1 << 20):
            made.write(data)
    return made


def docker_image(archive: Archive, source: str, reference: str) -> Image:
    """Return the image of a name, or the only one, of what ``docker save`` has written.

    A name may be ``@N`` as well, counted from 0. Raises Error.
    """
    what = f"manifest.json of {source}"
    try:
        listed = image.parse_json(
            b'{"images":' + read_small(archive.open("manifest.json"), what) + b"}", what
        )
    except FileNotFoundError:
        raise Error(f"{source} has no manifest.json: it is not what `docker save` writes") from None
    images = [image.require_object(one, what) for one in image.require_list(listed["images"], what)]
    names = [[str(tag) for tag in image.require_list(one.get("RepoTags"), what)] for one in images]
    number = reference[1:]
    if reference.startswith("@") and number.isascii() and number.isdigit() and len(number) < 10:
        chosen = images[int(number) : int(number) + 1]
    elif reference:
        wanted = {reference, f"docker.io/library/{reference}", f"docker.io/{reference}"}
        wanted |= {f"{one}:latest" for one in wanted}
        chosen = [one for one, tags in zip(images, names) if wanted & set(tags)]
    else:
        chosen = images
    if len(chosen) != 1:
        there = ", ".join(tag for tags in names for tag in tags) or "none with a name"
        raise Error(f"{source}: add :NAME of one image; there are: {there}")
    return _compose(archive, source, chosen[0])


def _compose(archive: Archive, source: str, about: dict[str, object]) -> Image:
    what = f"manifest.json of {source}"
    name = about.get("Config")
    paths = image.require_list(about.get("Layers"), what)
    try:
        config = read_small(archive.open(str(name)), f"{name} of {source}")
        for path in paths:
            archive.open(str(path)).close()
    except OSError as error:
        raise Error(f"{source} has no {error.filename}: it is damaged") from None
    document = image.parse_json(config, f"{name} of {source}")
    rootfs = image.require_object(document.get("rootfs") or {}, what)
    diff_ids = image.require_list(rootfs.get("diff_ids"), what)
    if len(diff_ids) != len(paths):
        raise Error(f"{source} has {len(paths)} layers, its configuration {len(diff_ids)}")
    layers = []
    for path, diff_id in zip(paths, diff_ids):
        Digest(str(diff_id))
        layers.append(Layer(Descriptor("", -1), str(diff_id), partial(archive.open, str(path))))
    return Image(source, image.platform_of(document), config, layers)
