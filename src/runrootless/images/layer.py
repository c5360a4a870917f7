"""Writing layers, and tarballs, of a root file system."""

from __future__ import annotations

import hashlib
import os
import stat
import sys

from runrootless.bundle.json_file import write_all
from runrootless.emulation.stores.copied import warning
from runrootless.errors import Error, named, shown
from runrootless.images.changes import parent_of
from runrootless.images.gzip_stream import GzipWriter
from runrootless.images.pack import Archive, find_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.images.changes import Changes
    from runrootless.images.read_tree import Found, Node, Tree

_WHITEOUT = b".wh."
_MANY = 1 << 28
"""So many bytes of holes a user is told of, because they take time."""


class Sink:
    """The end of what is written: a descriptor, with the digest of what has gone there."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._digest = hashlib.sha256()
        self.size = 0
        """In bytes."""

    def write(self, data: bytes) -> None:
        """Write all of it. Raises ``Error``."""
        try:
            write_all(self._fd, data)
        except BrokenPipeError:
            raise Error(f"nobody reads what is written to {self._name}") from None
        except OSError as error:
            raise Error(f"cannot write {self._name}: {error.strerror}") from None
        self._digest.update(data)
        self.size += len(data)

    def digest(self) -> str:
        """Return the digest, as the OCI image specification has it."""
        return f"sha256:{self._digest.hexdigest()}"


def write_layer(
    fd: int, name: str, tree: Tree, changes: Changes | None, latest: int | None
) -> dict[str, Any]:
    """Write the layer of some changes, or of a whole tree, compressed, to the file ``fd``.

    Return ``digest``, ``diff_id``, ``size``, and ``newest``, the latest time of modification
    in it in nanoseconds. Raises ``Error``, OSError.
    """
    sink = Sink(fd, name)
    digest = hashlib.sha256()
    compressed = GzipWriter(sink.write)

    def write(data: bytes) -> None:
        digest.update(data)
        compressed.write(data)

    try:
        archive = Archive(write, latest)
        packer = _Packer(archive, tree, is_layer=True)
        if changes is None:
            packer.pack()
        else:
            packer.pack_changes(changes)
        archive.close()
        compressed.close()
    finally:
        compressed.leave()
    return {
        "digest": sink.digest(),
        "diff_id": f"sha256:{digest.hexdigest()}",
        "size": sink.size,
        "newest": archive.newest,
    }


def write_tarball(archive: Archive, tree: Tree) -> None:
    """Write all files of a tree. Raises ``Error``, OSError."""
    _Packer(archive, tree, is_layer=False).pack()
    archive.close()


class _Packer:
    def __init__(self, archive: Archive, tree: Tree, is_layer: bool) -> None:
        self._archive = archive
        self._tree = tree
        self._is_layer = is_layer
        self._links: dict[tuple[int, int], bytes] = {}
        for path in tree.copies:
            _say(warning(path))

    def pack(self) -> None:
        """Write all there is."""
        for found in self._tree.walk(self._may_hold):
            if self._may_hold(found.path):
                self._add(found)
            else:
                _say(f"{os.fsdecode(found.path)} is left out: in a layer such a name means removal")

    def pack_changes(self, changes: Changes) -> None:
        """Write what a layer has to say."""
        gone: dict[bytes, list[bytes]] = {}
        for path in changes.gone:
            gone.setdefault(parent_of(path), []).append(path)
        for path in changes.sockets:
            _say_socket(path)
        for found in self._tree.walk(lambda path: path in changes.parents and self._may_hold(path)):
            path = found.path
            if path in changes.parents or path in changes.changed:
                if not self._may_hold(path):
                    _say(f"{os.fsdecode(path)} is left out: in a layer such a name means removal")
                elif not self._add(found) and path not in changes.new:
                    self._whiteout(path)
            # Before what is beside them: "implementations SHOULD generate layers such that".
            for name in sorted(gone.get(path, ())):
                self._whiteout(name)

    def _may_hold(self, path: bytes) -> bool:
        return not (self._is_layer and path.rpartition(b"/")[2].startswith(_WHITEOUT))

    def _whiteout(self, path: bytes) -> None:
        directory, slash, name = path.rpartition(b"/")
        self._archive.add_bytes(directory + slash + _WHITEOUT + name, b"")

    def _add(self, found: Found) -> bool:
        """Write a file; return whether it is still there."""
        try:
            with self._tree.opened(found) as (node, content):
                if node is None:
                    return False
                if stat.S_ISSOCK(node.mode):
                    _say_socket(found.path)
                    return False
                link = None
                status = node.status
                if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                    first = self._links.setdefault((status.st_dev, status.st_ino), found.path)
                    link = first if first != found.path else None
                if self._is_layer and link is None:
                    _tell_of_holes(found.path, node, content)
                if not self._archive.add(found.path, node, content, link):
                    _say(f"{os.fsdecode(found.path)} has changed while it was read")
        except OSError as error:
            raise named(error, os.fsdecode(found.path)) from None
        return True


def _tell_of_holes(path: bytes, node: Node, content: int) -> None:
    if node.size - 512 * node.status.st_blocks < _MANY:
        return
    # Where the file system compresses there may be none.
    holes = node.size - sum(length for _, length in find_parts(content, node.size))
    if holes >= _MANY:
        name = os.fsdecode(path)
        _say(f"{name} is written with {holes >> 20} MiB of zeros: layers have no holes")


def _say_socket(path: bytes) -> None:
    _say(f"{os.fsdecode(path)} is left out: it is a socket")


def _say(text: str) -> None:
    sys.stderr.write(f"runrootless: {shown(text)}\n")
