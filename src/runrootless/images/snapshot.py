"""What was in a root file system when it was unpacked: the file ``snapshot`` of a bundle.

By it ``commit`` finds what has changed in one walk. A file whose inode number and
st_ctime are the same is the same: nothing of it changes without st_ctime. Of all others
everything is compared but the content, which is looked up in the image's layers if all else
is the same. Of files that were so new that st_ctime might not tell, the digest of the
content is kept; those with holes, which may be larger than all that can be read, are let
grow old instead.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import time

from runrootless.errors import Error, named
from runrootless.images import own_namespace
from runrootless.images.new_file import NewFile
from runrootless.images.places_of_bundle import root_of, side_stores_of
from runrootless.images.read_tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from runrootless.images.read_tree import Found, Node

NAME = "snapshot"

_MAGIC = b"runrootless snapshot 1\n"
# Mode, owner and group, device, size, st_mtime, inode, st_ctime, number of the hard links' file;
# then the lengths of path, target, and the digests of attributes and content.
_HEAD = struct.Struct("=IIIQQqQqIIHBB")
_END = 0xFFFFFFFF
_DIGEST_SIZE = 16
_SECOND = 10**9
# How new a file may be whose st_ctime might not change with the next change, in nanoseconds:
# the kernel's ticks, or of file systems that keep whole seconds, or even ones.
_NEW, _NEW_IN_SECONDS = _SECOND // 10, 3 * _SECOND
_PART = 1 << 20


class Known:
    """What a file was. ``changed`` is st_ctime, 0 where that does not tell; ``links`` is the same
    number for hard links of one file, 0 of a file that has one name."""

    __slots__ = (
        "attributes", "changed", "content", "device", "gid", "inode", "links", "mode", "mtime",
        "path", "size", "target", "uid",
    )  # fmt: skip

    def __init__(
        self, head: tuple[int, ...], path: bytes, target: bytes, attributes: bytes, content: bytes
    ) -> None:
        self.mode, self.uid, self.gid, self.device, self.size, self.mtime = head[:6]
        self.inode, self.changed, self.links = head[6:9]
        self.path = path
        self.target = target
        self.attributes = attributes
        self.content = content

    def is_untouched(self, status: os.stat_result) -> bool:
        """Return whether a regular file or directory is the same for sure, by stat(2) of it."""
        return (
            self.inode == status.st_ino
            and self.changed == status.st_ctime_ns
            and self.mtime == status.st_mtime_ns
            and self.mode == status.st_mode
            and (self.size == status.st_size or not stat.S_ISREG(self.mode))
        )

    def equals(self, node: Node) -> bool:
        """Return whether all is the same that a container sees of a file but its content."""
        return (
            self.mode == node.mode
            and self.uid == node.uid
            and self.gid == node.gid
            and self.device == node.device
            and self.size == node.size
            and self.mtime == node.mtime
            and self.target == node.target
            and self.attributes == digest_of(node)
        )


def write(bundle: str) -> None:
    """Write the snapshot of the root file system of a bundle, in place of any other.

    Nothing else may change the root file system meanwhile. Raises ``Error``, OSError.
    """
    bundle = os.path.abspath(bundle)
    rootfs = root_of(bundle)
    with NewFile(bundle) as file:
        try:
            own_namespace.call(lambda: _write(file.fd, rootfs, side_stores_of(bundle, rootfs)))
            file.keep(NAME)
        except OSError as error:
            raise named(error, os.path.join(bundle, NAME)) from None


def read(bundle: str) -> Iterator[Known]:
    """Return what a snapshot says, in the order of ``Tree.walk``.

    Raises FileNotFoundError where there is none, and OSError; and ``Error``, on the way, for
    one that is damaged.
    """
    path = os.path.join(bundle, NAME)
    return _read(open(path, "rb", buffering=_PART), path)


def digest_of(node: Node) -> bytes:
    """Return what stands for the attributes of a file, nothing where it has none."""
    if not node.attributes:
        return b""
    digest = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    for name in sorted(node.attributes):
        value = node.attributes[name]
        digest.update(b"%d %d " % (len(name), len(value)) + name + value)
    return digest.digest()


def digest_of_content(file: int) -> bytes:
    """Return the SHA-256 of what is in an open file. Raises OSError."""
    digest = hashlib.sha256()
    while data := os.read(file, _PART):
        digest.update(data)
    return digest.digest()


def _write(fd: int, rootfs: str, side_stores: list[str]) -> None:
    tree = Tree(rootfs, side_stores)
    links: dict[tuple[int, int], int] = {}
    with open(fd, "wb", buffering=_PART, closefd=False) as file:
        file.write(_MAGIC)
        for found in tree.walk():
            file.write(_packed(tree, found, links))
        file.write(_HEAD.pack(*[0] * 9, _END, 0, 0, 0))


def _packed(tree: Tree, found: Found, links: dict[tuple[int, int], int]) -> bytes:
    is_regular = stat.S_ISREG(found.status.st_mode)
    has_holes = is_regular and found.status.st_blocks * 512 < found.status.st_size
    is_new = _stays_new(found.status) if has_holes else _is_new(found.status)
    with tree.opened(found, is_regular and is_new and not has_holes) as (node, content):
        if node is None:
            raise Error(f"{os.fsdecode(found.path)} has gone while it was looked at")
        status = node.status
        number = 0
        if status.st_nlink > 1 and not stat.S_ISDIR(node.mode):
            number = links.setdefault((status.st_dev, status.st_ino), len(links) + 1)
        attributes = digest_of(node)
        digest = digest_of_content(content) if content >= 0 else b""
        return (
            _HEAD.pack(
                node.mode,
                node.uid,
                node.gid,
                node.device,
                node.size,
                node.mtime,
                status.st_ino,
                0 if is_new else status.st_ctime_ns,
                number,
                len(found.path),
                len(node.target),
                len(attributes),
                len(digest),
            )
            + found.path
            + node.target
            + attributes
            + digest
        )


def _is_new(status: os.stat_result) -> bool:
    changed = status.st_ctime_ns
    return time.time_ns() - changed <= (_NEW if changed % _SECOND else _NEW_IN_SECONDS)


def _stays_new(status: os.stat_result) -> bool:
    """Wait until a file is not new; return whether it is even so, st_ctime being in the future."""
    end = time.monotonic_ns() + _NEW_IN_SECONDS
    while is_new := _is_new(status):
        if status.st_ctime_ns > time.time_ns() or time.monotonic_ns() > end:
            break
        time.sleep(_NEW / _SECOND / 10)
    return is_new


def _read(file: BinaryIO, path: str) -> Iterator[Known]:
    with file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise _damaged(path)
        unpack, size, read_on = _HEAD.unpack, _HEAD.size, file.read
        while True:
            data = read_on(size)
            if len(data) < size:
                raise _damaged(path)
            head = unpack(data)
            length, target, attributes, content = head[9:]
            if length == _END:
                return
            rest = read_on(length + target + attributes + content)
            if len(rest) < length + target + attributes + content:
                raise _damaged(path)
            target += length
            attributes += target
            yield Known(
                head, rest[:length], rest[length:target], rest[target:attributes], rest[attributes:]
            )


def _damaged(path: str) -> Error:
    return Error(f"{path} is damaged: --squash goes without it")
