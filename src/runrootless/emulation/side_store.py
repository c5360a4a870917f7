"""The records of files that cannot carry them: an append-only file beside the rootfs.

A line of 48 bytes for each change, the last one counts. Appending is one write with
O_APPEND, so that agents of several containers on one rootfs share the file: each
reads what has been added since it looked last. A line that was cut short by a crash
or a full disk has a wrong checksum and is passed over. This is chosen over SQLite
because an agent that has joined its container can neither open files by path nor
load modules any more, and because asking costs one lseek(2).

Keys are device, inode and time of birth: the number of a deleted file is given to new
ones. The device number of the rootfs itself is kept as 0, since it may be another one
after the next boot; other anonymous devices (tmpfs, proc) are gone with the
container, so what is recorded of their files stays in memory. The store of a user, for
what is emulated without a container, keeps all: there such a device may be NFS.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib

from runrootless.emulation.record import NOTHING, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_LINE = struct.Struct("=QQqIIIQ")
_CHECK = struct.Struct("=I")
LINE_SIZE = _LINE.size + _CHECK.size
"""Size of one line in bytes."""

COMPACTION_SIZE = 1 << 20
"""A file of this many bytes or more is rewritten, if nobody else uses it, when it is opened."""


class SideStore:
    """Records by device and inode; in memory only until ``open``."""

    def __init__(self) -> None:
        self._directory = -1
        self._name = ""
        self._root_device = -1
        self._lasting: Mapping[int, int] | None = None
        self._fd = -1
        self._size = 0
        self._records: dict[tuple[int, int], tuple[int, Record]] = {}

    def open(
        self,
        directory: int,
        name: str,
        root_device: int,
        lasting: Mapping[int, int] | None = None,
    ) -> None:
        """Keep records in the file ``name`` from now on, made when there is one to keep.

        ``directory`` is a descriptor of the directory that holds it; ``root_device`` is
        st_dev of the rootfs. Where other file systems outlast whoever uses the store,
        ``lasting`` gives numbers for those of them whose st_dev does not last. Raises
        OSError: EIO.
        """
        self._directory = directory
        self._name = name
        self._root_device = root_device
        self._lasting = lasting
        if self._open(0):
            self._compact()

    def find(self, device: int, inode: int) -> tuple[int, Record] | None:
        """Return the time of birth (nanoseconds) and the record kept for a file, or None."""
        if self._fd >= 0 or self._open(0):
            self._catch_up()
        if not self._records:
            return None
        return self._records.get((self._key_device(device), inode))

    def lasts(self, device: int) -> bool:
        """Return whether what is kept of files on a device lasts as long as they do.

        Anonymous devices are taken for the container's own: they are gone with it.
        """
        key_device = self._key_device(device)
        if key_device and not os.major(device):
            return True
        return self._fd >= 0 or self._open(os.O_CREAT)

    def keep(self, device: int, inode: int, birth: int, record: Record) -> None:
        """Keep a record. Raises OSError: ENOSPC, EDQUOT, EROFS."""
        found = self.find(device, inode)
        if found == (birth, record):
            return
        if record == NOTHING and (found is None or found[0] != birth):
            # What is not kept is as good, and takes no room.
            return
        key_device = self._key_device(device)
        if key_device and not os.major(device) and self._lasting is None:
            self._records[key_device, inode] = (birth, record)
            return
        if self._fd < 0 and not self._open(os.O_CREAT):
            self._records[key_device, inode] = (birth, record)
            return
        os.write(self._fd, _pack(key_device, inode, birth, record))
        self._catch_up()

    def _key_device(self, device: int) -> int:
        if device == self._root_device:
            return 0
        return self._lasting.get(device, device) if self._lasting else device

    def _open(self, flags: int) -> bool:
        if self._directory < 0:
            return False
        try:
            fd = os.open(
                self._name,
                flags | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
                dir_fd=self._directory,
            )
        except OSError:
            return False
        # Shared by all who use the file; whoever compacts it wants it alone.
        fcntl.flock(fd, fcntl.LOCK_SH)
        self._fd = fd
        return True

    def _catch_up(self) -> None:
        end = os.lseek(self._fd, 0, os.SEEK_END)
        if end - self._size < LINE_SIZE:
            return
        data = b""
        while part := os.pread(self._fd, 1 << 20, self._size + len(data)):
            data += part
        position = 0
        while position + LINE_SIZE <= len(data):
            line = data[position : position + LINE_SIZE]
            if _CHECK.pack(zlib.crc32(line[: _LINE.size])) != line[_LINE.size :]:
                # Cut short: the next line starts at some later byte.
                position += 1
                continue
            device, inode, birth, *values = _LINE.unpack_from(line)
            self._records[device, inode] = (birth, Record(*values))
            position += LINE_SIZE
        self._size += position

    def _compact(self) -> None:
        self._catch_up()
        if self._size < COMPACTION_SIZE or self._size < 2 * LINE_SIZE * len(self._records):
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            return
        data = b"".join(
            _pack(device, inode, birth, record)
            for (device, inode), (birth, record) in self._records.items()
            if record != NOTHING
        )
        temporary = f"{self._name}.new"
        fd = os.open(
            temporary,
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
            dir_fd=self._directory,
        )
        try:
            os.write(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        os.close(self._fd)
        self._fd = -1
        self._size = 0
        self._records.clear()
        if self._open(0):
            self._catch_up()


def _pack(device: int, inode: int, birth: int, record: Record) -> bytes:
    line = _LINE.pack(
        device, inode, birth, record.uid, record.gid, record.device_type, record.device
    )
    return line + _CHECK.pack(zlib.crc32(line))
