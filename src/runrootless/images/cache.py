"""What has been fetched, by digest: ``$XDG_CACHE_HOME/runrootless/blobs``, as in a layout.

A blob is there as a whole or not at all. What is there is checked once more when it is
unpacked.
"""

from __future__ import annotations

import os

from runrootless import home
from runrootless.bundle.json_file import write_all
from runrootless.errors import Error
from runrootless.images import layout
from runrootless.images.image import Descriptor
from runrootless.images.new_file import NewFile
from runrootless.images.streams import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_PART = 1 << 20


class Cache:
    """The user's cache. Raises Error where it cannot be made."""

    def __init__(self) -> None:
        base = home.directory("XDG_CACHE_HOME", ".cache")
        self.path = os.path.join(base, "runrootless")
        """An absolute path."""
        try:
            os.makedirs(base, 0o700, exist_ok=True)
            for path in (self.path, self.blobs, f"{self.blobs}/sha256"):
                os.makedirs(path, 0o700, exist_ok=True)
        except OSError as error:
            raise Error(
                f"cannot make the cache {self.path}: {error.strerror}: "
                "set XDG_CACHE_HOME to a directory of your own"
            ) from None

    @property
    def blobs(self) -> str:
        """The directory that has a directory for each algorithm of digests."""
        return os.path.join(self.path, "blobs")

    def path_of(self, digest: str) -> str:
        """Return where a blob is, or is to be."""
        return os.path.join(self.path, layout.blob_name(digest))

    def has(self, descriptor: Descriptor) -> bool:
        """Return whether a blob is there; one of another size is removed."""
        path = self.path_of(descriptor.digest)
        try:
            size = os.stat(path).st_size
        except OSError:
            return False
        if descriptor.size in (-1, size):
            return True
        self.discard(descriptor.digest)
        return False

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """Open a blob to read. Raises OSError."""
        return open(self.path_of(descriptor.digest), "rb", buffering=0)

    def read(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, which is checked; a damaged one is removed.

        Raises Error, and OSError where it is not there.
        """
        data = layout.read_small(self.open(descriptor), descriptor.digest)
        try:
            return layout.checked(data, descriptor, "what the cache has")
        except Error:
            self.discard(descriptor.digest)
            raise

    def add(self, digest: str, data: bytes) -> None:
        """Keep a small blob, which has been checked. Raises OSError."""
        path = self.path_of(digest)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        temporary = f"{path}.{os.getpid()}"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    def take(self, descriptor: Descriptor, file: BinaryIO) -> None:
        """Keep what a file has, whose digest is checked. Raises Error, OSError."""
        path = self.path_of(descriptor.digest)
        directory, name = os.path.split(path)
        os.makedirs(directory, 0o700, exist_ok=True)
        digest = Digest(descriptor.digest)
        with NewFile(directory) as new:
            while data := file.read(_PART):
                digest.update(data)
                write_all(new.fd, data)
            if not digest.is_right():
                raise Error(f"the layer {descriptor.digest} is damaged where it comes from")
            new.keep(name)

    def discard(self, digest: str) -> None:
        """Remove a blob, if it is there."""
        try:
            os.unlink(self.path_of(digest))
        except OSError:
            pass
