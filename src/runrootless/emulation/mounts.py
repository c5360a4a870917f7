"""mount(2) of proc and sysfs, of which the kernel refuses new instances.

It gives one to the owner of the pid or network namespace that it shows only. Programs
that prepare a root file system want one there all the same, and one that shows what is
shown already is as good: so the present one is bound there, with what is mounted in it
(a mask must stay one). Unmounting it takes all of that, which the kernel does not let go
of one by one.
"""

from __future__ import annotations

import errno
import os

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.credentials import CAP_SYS_ADMIN
from runrootless.emulation.identity import Identity
from runrootless.emulation.paths import Paths
from runrootless.linux import mounts
from runrootless.linux.files import AT_FDCWD, O_PATH, Files
from runrootless.linux.memory import Memory
from runrootless.linux.processes import mount_number, read_status, status_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.roots import Views

_NAMESPACES = {b"proc": b"pid", b"sysfs": b"net"}
_DIRECTORIES = {b"proc": "/proc", b"sysfs": "/sys"}
_OTHER_OPERATIONS = mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_MOVE | mounts.MS_PROPAGATION
_TYPE_LIMIT = 16
_WORD = 0xFFFFFFFF


class Mounts:
    """Handlers of mount(2) and umount2(2)."""

    def __init__(
        self, memory: Memory, files: Files, paths: Paths, identity: Identity, views: Views
    ) -> None:
        self._views = views
        self._memory = memory
        self._files = files
        self._paths = paths
        self._identity = identity
        self._present: dict[bytes, tuple[bytes, int]] = {}

    def look(self) -> None:
        """Take note of what is mounted, once the agent has joined the container."""
        for kind, directory in _DIRECTORIES.items():
            for process in (b"self", b"1"):
                try:
                    link = os.readlink(b"/proc/%b/ns/%b" % (process, _NAMESPACES[kind]))
                    fd = os.open(directory, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                except OSError:
                    # The agent has no number in the container, or there is no such thing.
                    continue
                self._present[kind] = (link, fd)
                break

    def mount(self, call: Call) -> int | None:
        """mount(2)."""
        _, target, address, flags = call.arguments[:4]
        if flags & _OTHER_OPERATIONS:
            return None
        kind = self._memory.read_string(call.pid, address, _TYPE_LIMIT)
        if kind not in self._present:
            return None
        link, _ = self._present[kind]
        if os.readlink(b"%d/ns/%b" % (call.pid, _NAMESPACES[kind])) != link:
            # One of the caller's own, probably.
            return None
        if not _may_mount(call.pid):
            return None
        if not self._identity.of(call.pid).can(CAP_SYS_ADMIN):
            return -errno.EPERM
        name, _ = self._paths.name(call, AT_FDCWD, target, 0)
        # In another mount namespace it is another mount.
        fd = self._views.open_outside(call.pid, _DIRECTORIES[kind])
        try:
            require_valid(call)
            mounts.bind(b"self/fd/%d" % fd, name)
            present = os.fstatvfs(fd).f_flag & mounts.MS_RESTRICTIONS
        finally:
            os.close(fd)
        if flags & mounts.MS_RESTRICTIONS:
            try:
                # What the present one has must stay.
                mounts.restrict(name, flags & mounts.MS_RESTRICTIONS | present)
            except OSError:
                mounts.detach(name)
                raise
        return 0

    def umount(self, call: Call) -> int | None:
        """umount2(2)."""
        target, flags = call.arguments[:2]
        if flags & _WORD:
            return None
        name, _ = self._paths.name(call, AT_FDCWD, target, 0)
        fd = self._files.open_path(name, 0)
        if fd < 0:
            return None
        try:
            if not self._is_bound(fd) or not _may_mount(call.pid):
                return None
        finally:
            os.close(fd)
        if not self._identity.of(call.pid).can(CAP_SYS_ADMIN):
            return -errno.EPERM
        require_valid(call)
        mounts.detach(name)
        return 0

    def _is_bound(self, fd: int) -> bool:
        """Return whether a place is where proc or sysfs was bound."""
        status = os.fstat(fd)
        return any(
            os.path.samestat(status, os.fstat(present))
            and mount_number(fd) != mount_number(present)
            for _, present in self._present.values()
        )


def _may_mount(pid: int) -> bool:
    """Return whether the kernel leaves a process the capability that the agent will use."""
    effective = int(status_fields(read_status(pid), b"CapEff")[0], 16)
    return bool(effective & CAP_SYS_ADMIN)
