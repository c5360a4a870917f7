"""32-bit programs on x86_64: calls whose structures differ from the native ones.

The calls with 16-bit IDs, which C libraries have not used since Linux 2.4, are not emulated.
"""

from __future__ import annotations

import errno
import struct

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.metadata import Metadata
from runrootless.linux.files import AT_FDCWD, AT_SYMLINK_NOFOLLOW
from runrootless.linux.memory import Memory

_STAT = struct.Struct("=QQQIII4xQqqqqqqqqq")
"""``struct stat`` of x86_64 without its reserved end."""

_STAT64 = struct.Struct("=Q4xIIIIIQ4xqIQIIIIIIQ")
"""``struct stat64`` of i386."""

_LIMITS = struct.Struct("=II")
_MASK = 0xFFFFFFFF


class I386:
    """Handlers of these calls."""

    def __init__(self, memory: Memory, metadata: Metadata) -> None:
        self._memory = memory
        self._metadata = metadata

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

    def getrlimit(self, call: Call) -> int:
        """ugetrlimit(RLIMIT_RTTIME): no limit, as everywhere."""
        require_valid(call)
        written = self._memory.write(call.pid, call.arguments[1], _LIMITS.pack(_MASK, _MASK))
        return 0 if written else -errno.EFAULT

    def setrlimit(self, call: Call) -> int:
        """setrlimit(RLIMIT_RTTIME): accepted, without effect."""
        data = self._memory.read(call.pid, call.arguments[1], _LIMITS.size)
        if data is None:
            return -errno.EFAULT
        soft, hard = _LIMITS.unpack(data)
        return -errno.EINVAL if soft > hard else 0


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
