"""What is kept of files that cannot carry it: append-only files beside the rootfs.

A line for each change, the last one counts. Appending is one write with O_APPEND, so
that agents of several containers on one rootfs share the file: each reads what has
been added since it looked last. A line that was cut short by a crash or a full disk
has a wrong checksum and is passed over. This is chosen over SQLite because an agent
that has joined its container can neither open files by path nor load modules any
more, and because asking costs one lseek(2).

Keys are device, inode and time of birth: the number of a deleted file is given to new
ones. The device number of the rootfs itself is kept as 0, since it may be another one
after the next boot; other anonymous devices (tmpfs, proc) are gone with the
container, so what is recorded of their files stays in memory. The store of a user, for
what is emulated without a container, keeps all: there such a device may be NFS.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import zlib

from runrootless.emulation.call import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_CHECK = struct.Struct("=I")
CHECK_SIZE = _CHECK.size
"""How many bytes longer a line is with its checksum."""

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


def with_checksum(line: bytes) -> bytes:
    """Return a line with its checksum at the end."""
    return line + _CHECK.pack(zlib.crc32(line))


def without_checksum(line: bytes) -> bytes | None:
    """Return a line without its checksum, or None if that is wrong."""
    content = line[:-CHECK_SIZE]
    return content if _CHECK.pack(zlib.crc32(content)) == line[-CHECK_SIZE:] else None


class SideStore:
    """What all stores have in common; what their lines say is theirs."""

    compaction_size = 1 << 20
    """A file of this many bytes or more is rewritten, if nobody else uses it, when it is opened."""

    def __init__(self) -> None:
        self._directory = -1
        self._name = ""
        self._root_device = -1
        self._lasting: Mapping[int, int] | None = None
        self._fd = -1
        self._read = 0
        self._end = 0

    def open(
        self,
        directory: int,
        name: str,
        root_device: int,
        lasting: Mapping[int, int] | None = None,
    ) -> None:
        """Keep records in the file ``name`` from now on, made when there is one to keep.

        Until then they stay in memory. ``directory`` is a descriptor of the directory that
        holds the file; ``root_device`` is st_dev of the rootfs. Where other file systems
        outlast whoever uses the store, ``lasting`` gives numbers for those of them whose
        st_dev does not last. Raises OSError: EIO.
        """
        self._directory = directory
        self._name = name
        self._root_device = root_device
        self._lasting = lasting
        if self._open(0) and os.fstat(self._fd).st_size >= self.compaction_size:
            self._compact()

    def lasts(self, device: int) -> bool:
        """Return whether what is kept of files on a device lasts as long as they do.

        Anonymous devices are taken for the container's own: they are gone with it.
        """
        key_device = self._key_device(device)
        if key_device and not os.major(device):
            return True
        return self._fd >= 0 or self._open(os.O_CREAT)

    def _take(self, data: bytes) -> int:
        """Take the lines at the beginning of ``data`` to heart; return their size in bytes."""
        raise NotImplementedError

    def _lines(self) -> list[bytes]:
        """Return lines that say all that is kept, and nothing else; forget what need not be."""
        raise NotImplementedError

    def _lines_size(self) -> int:
        """Return the size in bytes that these lines have, or somewhat more."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Forget what the file says."""
        raise NotImplementedError

    def _key_device(self, device: int) -> int:
        if device == self._root_device:
            return 0
        return self._lasting.get(device, device) if self._lasting else device

    def _stays_in_memory(self, key_device: int) -> bool:
        return key_device != 0 and self._lasting is None and not os.major(key_device)

    def _look(self) -> None:
        """Read what has been added. Raises OSError: EIO."""
        if self._fd >= 0 or self._open(0):
            self._catch_up()

    def _append(self, key_device: int, line: bytes, limit: int = 0) -> bool:
        """Add a line about a file; return False if what it says is to stay in memory.

        ``limit`` is the size that the file may have, in bytes, if there is one. Raises
        OSError: ENOSPC, EDQUOT, EROFS.
        """
        if self._stays_in_memory(key_device):
            return False
        if limit and self._end + len(line) > limit:
            self._compact()
        if self._fd < 0 and not self._open(os.O_CREAT):
            return False
        if limit and os.lseek(self._fd, 0, os.SEEK_END) + len(line) > limit:
            raise failure(errno.ENOSPC)
        written = os.write(self._fd, line)
        self._catch_up()
        if written < len(line):
            raise failure(errno.ENOSPC)
        return True

    def _open(self, flags: int) -> bool:
        if self._directory < 0:
            return False
        while True:
            try:
                fd = os.open(self._name, flags | _FLAGS, 0o600, dir_fd=self._directory)
            except OSError:
                return False
            # Shared by all who use the file; whoever compacts it wants it alone.
            fcntl.flock(fd, fcntl.LOCK_SH)
            if _has_name(fd):
                break
            # Somebody has compacted it in the meantime.
            os.close(fd)
        self._fd = fd
        return True

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1
        self._read = self._end = 0
        self._forget()

    def _catch_up(self) -> None:
        end = os.lseek(self._fd, 0, os.SEEK_END)
        if end == self._end:
            return
        data = b""
        while part := os.pread(self._fd, 1 << 20, self._read + len(data)):
            data += part
        self._read += self._take(data)
        self._end = end

    def _compact(self) -> None:
        """Rewrite the file if that makes it half as large, and nobody else uses it."""
        self._catch_up()
        if self._read < 2 * self._lines_size():
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fcntl.flock(self._fd, fcntl.LOCK_SH)
        else:
            self._catch_up()
            if _has_name(self._fd):
                self._rewrite()
        # One lock is not exchanged for the other in one step: somebody may have been faster.
        if not _has_name(self._fd):
            self._close()

    def _rewrite(self) -> None:
        """Put a new file in the place of this one, which is locked against all others."""
        data = b"".join(self._lines())
        temporary = f"{self._name}.new"
        fd = -1
        try:
            flags = _FLAGS | os.O_CREAT | os.O_TRUNC
            fd = os.open(temporary, flags, 0o600, dir_fd=self._directory)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.write(fd, data) < len(data):
                raise failure(errno.ENOSPC)
            os.fsync(fd)
            os.rename(temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError:
            # This one stays as it is.
            if fd >= 0:
                os.close(fd)
                os.unlink(temporary, dir_fd=self._directory)
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            return
        os.close(self._fd)
        self._fd = fd
        self._read = self._end = len(data)


def _has_name(fd: int) -> bool:
    return os.fstat(fd).st_nlink > 0
