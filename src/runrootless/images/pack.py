"""Writing tar archives: POSIX.1-2001 with what is usual for attributes.

Python's own writer takes names as text, and headers that say nothing are left out of ours:
what an entry says follows from the file alone, to the byte. pax(1), "pax Interchange
Format"; ``SCHILY.xattr.`` is star's, which the OCI image specification and GNU tar have taken
over.
"""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.files.access_lists import unpack
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runrootless.images.read_tree import Node

    Part = tuple[int, int]

_BLOCK = 512
_RECORD = 20 * _BLOCK
_PART = 1 << 20
ZEROS = bytes(_PART)
"""What is written for holes."""
# Readers take a map of 1 MiB at most: Go's archive/tar.
_PARTS_LIMIT = 1 << 13
_NAME_RECORD = b"GNU.sparse.name"
_SPARSE_NAME = b"GNUSparseFile.0"
_NAME = 100
_SECOND = 10**9
_ID_LIMIT = 0o7777777
_NUMBER_LIMIT = 0o77777777777

REGULAR, LINK, SYMLINK, DIRECTORY = b"0", b"1", b"2", b"5"
_PAX = b"x"
_ATTRIBUTE = b"SCHILY.xattr."
# <linux/posix_acl.h>: the tags, and whether there is a number with them.
_TAGS = {
    1: (b"user", False),
    2: (b"user", True),
    4: (b"group", False),
    8: (b"group", True),
    16: (b"mask", False),
    32: (b"other", False),
}
_TYPES = {
    stat.S_IFREG: REGULAR,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: b"6",
}


class Archive:
    """A tar archive that is written to ``write``, which takes all that it is given.

    Times of modification after ``latest`` (nanoseconds) are written as that. With ``for_tar`` the
    access control lists are written as text as well, and holes left out, as tar(1) has both;
    layers "SHOULD NOT" have holes: layer.md of the OCI image specification.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        latest: int | None = None,
        for_tar: bool = False,
    ) -> None:
        self._write = write
        self._latest = latest
        self._for_tar = for_tar
        self._size = 0
        self.newest = 0
        """The latest time of modification that was written, in nanoseconds."""

    def add(self, path: bytes, node: Node, content: int = -1, link: bytes | None = None) -> bool:
        """Add a file: ``path`` is from the root, ``link`` the path of its first hard link.

        A regular file's content is what ``content`` is open for. Return whether the file has
        stayed as it was meanwhile; as much of it is written as there was at first. Raises
        ``Error`` if there is less of it by now, ``ValueError`` for a socket, and OSError.
        """
        kind = _TYPES.get(stat.S_IFMT(node.mode))
        if kind is None:
            raise ValueError("an archive holds no sockets")
        name = (path or b".") + b"/" if kind == DIRECTORY else path
        size = 0
        if link is not None:
            kind = LINK
        elif kind == REGULAR:
            size = node.size
        target = link if link is not None else node.target
        mtime = node.mtime if self._latest is None else min(node.mtime, self._latest)
        self.newest = max(self.newest, mtime)
        records = {
            _ATTRIBUTE + key.replace(b"=", b"%3D"): value for key, value in node.attributes.items()
        }
        if self._for_tar:
            records.update(_lists(node))
        parts = find_parts(content, size) if size else []
        before = b""
        if self._for_tar and size:
            before = _map(parts, size)
            stored = len(before) + sum(length for _, length in parts)
            if stored + _BLOCK < size:
                records.update(_sparse(name, size))
                name, size = _name_of_sparse(name), stored
            else:
                before, parts = b"", [(0, size)]
        self._put(header(name, kind, node, size, mtime, target, records))
        self._put(before)
        return not node.size or link is not None or self._copy(path, node, content, parts)

    def add_bytes(self, path: bytes, data: bytes, mode: int = 0) -> None:
        """Add a regular file of root's, of the time 0."""
        self._put(header(path, REGULAR, _Plain(mode), len(data), 0, b"", {}))
        self._put(data + bytes(-len(data) % _BLOCK))

    def begin(self, path: bytes, size: int, mode: int) -> None:
        """Add a regular file of root's, of the time 0; ``put`` is called with what is in it."""
        self._put(header(path, REGULAR, _Plain(mode), size, 0, b"", {}))

    def put(self, data: bytes) -> None:
        """Write a part of the content of a file."""
        self._put(data)

    def end(self) -> None:
        """Fill up the last block of a file's content."""
        self._put(bytes(-self._size % _BLOCK))

    def close(self) -> None:
        """Write the end of the archive."""
        self._put(bytes(2 * _BLOCK))
        self._put(bytes(-self._size % _RECORD))

    def _copy(self, path: bytes, node: Node, content: int, parts: Sequence[Part]) -> bool:
        at = 0
        for offset, length in parts:
            self._fill(offset - at)
            at = offset + length
            while offset < at:
                data = os.pread(content, min(_PART, at - offset), offset)
                if not data:
                    raise Error(
                        f"{os.fsdecode(path)} has become shorter while it was read: "
                        "end what changes it, and try again"
                    )
                self._put(data)
                offset += len(data)
        self._fill(node.size - at)
        self.end()
        after = os.fstat(content)
        return (after.st_size, after.st_mtime_ns) == (node.size, node.status.st_mtime_ns)

    def _fill(self, size: int) -> None:
        """Write the zeros of a hole, where it is not left out."""
        while size and not self._for_tar:
            self._put(ZEROS[:size])
            size -= min(size, len(ZEROS))

    def _put(self, data: bytes) -> None:
        self._size += len(data)
        self._write(data)


def find_parts(file: int, size: int) -> list[Part]:
    """Return where the data of an open file are, of so many bytes: offsets and sizes.

    What is between them are holes: lseek(2), SEEK_DATA. Raises OSError.
    """
    parts: list[Part] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
            end = min(os.lseek(file, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                return [(0, size)]
            raise
        if start >= size:
            break
        parts.append((start, end - start))
        at = end
    least = 1
    while len(parts) > _PARTS_LIMIT:
        least *= 2
        parts = _joined(parts, least)
    return parts


def _joined(parts: list[Part], least: int) -> list[Part]:
    """Return parts in which holes of fewer bytes than ``least`` are none."""
    found = parts[:1]
    for offset, length in parts[1:]:
        start, before = found[-1]
        if offset - (start + before) < least:
            found[-1] = start, offset + length - start
        else:
            found.append((offset, length))
    return found


def _map(parts: Sequence[Part], size: int) -> bytes:
    """Return what comes before the data of a sparse file: GNU tar's format 1.0.

    "Storing Sparse Files" in its manual. Which size the file has tells a last part without data.
    """
    listed = [*parts, (size, 0)]
    numbers = [len(listed), *(number for part in listed for number in part)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + bytes(-len(text) % _BLOCK)


def _name_of_sparse(name: bytes) -> bytes:
    """Return the name that those see who know no sparse files; no record is needed for it."""
    directory, slash, base = name.rpartition(b"/")
    shown = directory + slash + _SPARSE_NAME + b"/" + base
    return shown if len(shown) <= _NAME and shown.isascii() else _SPARSE_NAME


def _sparse(name: bytes, size: int) -> dict[bytes, bytes]:
    """Return what an extended header says of a sparse file."""
    return {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        _NAME_RECORD: name,
        b"GNU.sparse.realsize": b"%d" % size,
    }


def _lists(node: Node) -> dict[bytes, bytes]:
    """Return the access control lists of a file as acl_to_text(3) has them, with numbers."""
    found = {}
    for kind in (b"access", b"default"):
        value = node.attributes.get(b"system.posix_acl_" + kind)
        entries = unpack(value) if value else None
        if entries:
            found[b"SCHILY.acl." + kind] = b",".join(map(_entry, entries))
    return found


def _entry(entry: tuple[int, int, int]) -> bytes:
    tag, permissions, number = entry
    name, is_named = _TAGS.get(tag, (b"other", False))
    letters = bytes(
        letter if permissions & bit else ord("-") for letter, bit in zip(b"rwx", (4, 2, 1))
    )
    return b"%b:%b:%b" % (name, b"%d" % number if is_named else b"", letters)


class _Plain:
    """What a file of root's is that is in no tree."""

    uid = gid = device = 0

    def __init__(self, mode: int) -> None:
        self.mode = mode


def header(
    name: bytes,
    kind: bytes,
    node: Node | _Plain,
    size: int,
    mtime: int,
    target: bytes,
    records: Mapping[bytes, bytes],
) -> bytes:
    """Return the blocks that come before the content of an entry.

    ``mtime`` is in nanoseconds; ``records`` are those of an extended header.
    """
    extended = dict(records)
    for key, value, limit in ((b"path", name, _NAME), (b"linkpath", target, _NAME)):
        if len(value) > limit or not value.isascii():
            extended[key] = value
    if not all(map(_is_utf8, (name, target, records.get(_NAME_RECORD, b"")))):
        extended[b"hdrcharset"] = b"BINARY"
    for key, number in ((b"uid", node.uid), (b"gid", node.gid)):
        if number > _ID_LIMIT:
            extended[key] = b"%d" % number
    if size > _NUMBER_LIMIT:
        extended[b"size"] = b"%d" % size
    seconds, rest = divmod(mtime, _SECOND)
    if rest or not 0 <= seconds <= _NUMBER_LIMIT:
        extended[b"mtime"] = _decimal(mtime)
    block = _block(name, kind, node, size, min(max(seconds, 0), _NUMBER_LIMIT), target)
    if not extended:
        return block
    # What says how the others are to be read is to come first.
    order = sorted(extended, key=lambda key: (key != b"hdrcharset", key))
    data = b"".join(_pax_record(key, extended[key]) for key in order)
    before = _block(b"PaxHeaders/" + name.rstrip(b"/"), _PAX, _Plain(0o644), len(data), 0, b"")
    return before + data + bytes(-len(data) % _BLOCK) + block


def _block(
    name: bytes, kind: bytes, node: Node | _Plain, size: int, seconds: int, target: bytes
) -> bytes:
    is_device = kind in (b"3", b"4")
    fields = [
        name[:_NAME].ljust(_NAME, b"\0"),
        b"%07o\0" % stat.S_IMODE(node.mode),
        b"%07o\0" % min(node.uid, _ID_LIMIT),
        b"%07o\0" % min(node.gid, _ID_LIMIT),
        b"%011o\0" % min(size, _NUMBER_LIMIT),
        b"%011o\0" % seconds,
        b" " * 8,
        kind,
        target[:_NAME].ljust(_NAME, b"\0"),
        b"ustar\00000",
        bytes(64),
        b"%07o\0" % (os.major(node.device) if is_device else 0),
        b"%07o\0" % (os.minor(node.device) if is_device else 0),
        bytes(167),
    ]
    fields[6] = b"%06o\0 " % sum(b"".join(fields))
    return b"".join(fields)


def _pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest)
    while size != len(rest) + len(str(size)):
        size = len(rest) + len(str(size))
    return b"%d" % size + rest


def _decimal(time: int) -> bytes:
    sign, (seconds, rest) = "-" if time < 0 else "", divmod(abs(time), _SECOND)
    return f"{sign}{seconds}.{rest:09}".rstrip("0").rstrip(".").encode()


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
