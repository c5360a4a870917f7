"""Special files: mknod(2). A device node is a regular file whose record tells what it is."""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.call import Call, failure, require_valid
from runrootless.emulation.identity import Identity
from runrootless.emulation.ownership import Ownership
from runrootless.emulation.paths import Paths
from runrootless.emulation.record import Record
from runrootless.linux.files import AT_FDCWD

_DEVICE_TYPES = (stat.S_IFCHR, stat.S_IFBLK)


class Nodes:
    """Handlers of the mknod family."""

    def __init__(self, paths: Paths, ownership: Ownership, identity: Identity) -> None:
        self._paths = paths
        self._ownership = ownership
        self._identity = identity

    def mknod(self, call: Call) -> int | None:
        """mknod(2)."""
        path, mode, device = call.arguments[:3]
        return self._mknod(call, AT_FDCWD, path, mode, device)

    def mknodat(self, call: Call) -> int | None:
        """mknodat(2)."""
        _, path, mode, device = call.arguments[:4]
        return self._mknod(call, call.descriptor(0), path, mode, device)

    def _mknod(self, call: Call, directory: int, path: int, mode: int, device: int) -> int | None:
        mode &= 0xFFFF
        device &= 0xFFFFFFFF
        kind = stat.S_IFMT(mode)
        # A whiteout (character device 0:0) is anyone's to make, as the other types are.
        if kind not in _DEVICE_TYPES or (kind == stat.S_IFCHR and not device):
            return None
        credentials = self._identity.of(call.pid)
        name, _ = self._paths.name(call, directory, path, 0)
        if not credentials.privileged:
            return -errno.EPERM
        if name.endswith(b"/"):
            return -errno.ENOENT
        permissions = mode & 0o7777 & ~_umask(call.pid)
        require_valid(call)
        try:
            fd = os.open(
                name,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                permissions & 0o777,
            )
        except OSError as error:
            return self._paths.explain(call, directory, name, -(error.errno or errno.EIO))
        try:
            handle = b"self/fd/%d" % fd
            os.fchmod(fd, permissions)
            status = os.fstat(fd)
            record = Record(credentials.uids[3], credentials.gids[3], kind, device)
            self._ownership.keep(handle, status.st_mode, status.st_dev, status.st_ino, record)
        except OSError:
            os.unlink(name)
            raise
        finally:
            os.close(fd)
        return 0


def _umask(pid: int) -> int:
    """Return the file mode creation mask of a process. Raises OSError: ESRCH."""
    try:
        fd = os.open(b"%d/status" % pid, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        raise failure(errno.ESRCH) from None
    try:
        text = os.read(fd, 4096)
    finally:
        os.close(fd)
    return int(text.partition(b"\nUmask:")[2].split(maxsplit=1)[0], 8)
