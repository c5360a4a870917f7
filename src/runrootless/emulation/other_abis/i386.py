"""32-bit programs on x86_64: calls whose structures differ from the native ones."""

from __future__ import annotations

import struct

from runrootless.emulation.call import Call
from runrootless.emulation.files.metadata import Metadata
from runrootless.emulation.other_abis.ids_16 import shown
from runrootless.linux.files import AT_FDCWD, AT_SYMLINK_NOFOLLOW

_STAT = struct.Struct("=QQQIII4xQqqqqqqqqq")
"""``struct stat`` of x86_64 without its reserved end."""

_STAT64 = struct.Struct("=Q4xIIIIIQ4xqIQIIIIIIQ")
"""``struct stat64`` of i386."""

_OLD_STAT = struct.Struct("=IIHHHHIIIIIIIIIIII")
"""``struct stat`` of i386, with 16-bit IDs, up to its nanoseconds."""

_MASK = 0xFFFFFFFF


class I386:
    """Handlers of these calls."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def stat(self, call: Call) -> int | None:
        """stat(2), with 16-bit IDs."""
        path, buffer = call.arguments[:2]
        return self._metadata.stat_path(call, AT_FDCWD, path, buffer, 0, _convert_old)

    def lstat(self, call: Call) -> int | None:
        """lstat(2), with 16-bit IDs."""
        path, buffer = call.arguments[:2]
        flags = AT_SYMLINK_NOFOLLOW
        return self._metadata.stat_path(call, AT_FDCWD, path, buffer, flags, _convert_old)

    def fstat(self, call: Call) -> int | None:
        """fstat(2), with 16-bit IDs."""
        descriptor, buffer = call.descriptor(0), call.arguments[1]
        return self._metadata.stat_descriptor(call, descriptor, buffer, _convert_old)

    def stat64(self, call: Call) -> int | None:
        """stat64(2)."""
        path, buffer = call.arguments[:2]
        return self._metadata.stat_path(call, AT_FDCWD, path, buffer, 0, _convert)

    def lstat64(self, call: Call) -> int | None:
        """lstat64(2)."""
        path, buffer = call.arguments[:2]
        flags = AT_SYMLINK_NOFOLLOW
        return self._metadata.stat_path(call, AT_FDCWD, path, buffer, flags, _convert)

    def fstat64(self, call: Call) -> int | None:
        """fstat64(2)."""
        descriptor, buffer = call.descriptor(0), call.arguments[1]
        return self._metadata.stat_descriptor(call, descriptor, buffer, _convert)

    def fstatat64(self, call: Call) -> int | None:
        """fstatat64(2)."""
        _, path, buffer, flags = call.arguments[:4]
        return self._metadata.stat_path(call, call.descriptor(0), path, buffer, flags, _convert)


def _convert(data: bytearray) -> bytes:
    """Return struct stat64 for the native struct stat."""
    device, inode, links, mode, uid, gid, node, size, block_size, blocks, *times = (
        _STAT.unpack_from(data)
    )
    return _STAT64.pack(
        device,
        inode & _MASK,
        mode,
        links & _MASK,
        uid,
        gid,
        node,
        size,
        block_size & _MASK,
        blocks,
        *(time & _MASK for time in times),
        inode,
    )


def _convert_old(data: bytearray) -> bytes:
    """Return the old struct stat for the native one."""
    device, inode, links, mode, uid, gid, node, size, block_size, blocks, *times = (
        _STAT.unpack_from(data)
    )
    return _OLD_STAT.pack(
        device & _MASK,
        inode & _MASK,
        mode,
        links & 0xFFFF,
        shown(uid),
        shown(gid),
        node & _MASK,
        size & _MASK,
        block_size & _MASK,
        blocks & _MASK,
        *(time & _MASK for time in times),
        0,
        0,
    )
