"""chroot(2), and the calls after which processes see different files."""

from __future__ import annotations

import errno
import os
import stat
import struct

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.callers.credentials import CAP_SYS_ADMIN, CAP_SYS_CHROOT
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.owners.devices import Devices
from runrootless.emulation.processes.privileges import lacks, may_join, may_make_namespaces
from runrootless.emulation.processes.status_files import StatusFiles
from runrootless.linux.capabilities import is_effective
from runrootless.linux.files import AT_FDCWD
from runrootless.linux.namespaces import CLONE_NEWNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Views(Protocol):
        """Who follows the processes."""

        varied: bool

        def open_outside(self, pid: int, path: str) -> int:
            """Return a descriptor of a directory of a process's mount namespace."""


_FLAGS = struct.Struct("=Q")


class Roots(Handlers):
    """Lets the calls through, but tells ``views`` that from now on views may vary."""

    def __init__(
        self, shared: Shared, devices: Devices, status_files: StatusFiles, views: Views
    ) -> None:
        super().__init__(shared)
        self._devices = devices
        self._status_files = status_files
        self._views = views

    def chroot(self, call: Call) -> int | None:
        """chroot(2)."""
        directory = self._paths.open(call, AT_FDCWD, call.arguments[0], 0)
        try:
            if not self._identity.of(call.pid).can(CAP_SYS_CHROOT):
                # The kernel looks for the directory before it looks at the privilege.
                is_directory = stat.S_ISDIR(os.fstat(directory).st_mode)
                return -errno.EPERM if is_directory else -errno.ENOTDIR
            if not is_effective(call.pid, CAP_SYS_CHROOT):
                return None
            if self._devices.mounted:
                self._devices.tidy()
            require_valid(call)
            self._devices.furnish(call.pid, directory)
        finally:
            os.close(directory)
        self._views.varied = True
        return None

    def pivot_root(self, call: Call) -> int | None:
        """pivot_root(2)."""
        if lacks(self._identity, call, CAP_SYS_ADMIN):
            return -errno.EPERM
        self._views.varied = True
        if self._identity.of(call.pid).can(CAP_SYS_ADMIN) and is_effective(call.pid, CAP_SYS_ADMIN):
            directory = self._paths.open(call, AT_FDCWD, call.arguments[0], 0)
            try:
                require_valid(call)
                self._devices.furnish(call.pid, directory)
            finally:
                os.close(directory)
        return None

    def setns(self, call: Call) -> int | None:
        """setns(2)."""
        if not may_join(self._identity, call, *call.arguments[:2]):
            return -errno.EPERM
        self._views.varied = True
        return None

    def unshare(self, call: Call) -> int | None:
        """unshare(2), and clone(2) with namespaces: both have their flags first."""
        if not may_make_namespaces(self._identity, call, call.arguments[0]):
            return -errno.EPERM
        self._views.varied = True
        if call.arguments[0] & CLONE_NEWNS:
            self._status_files.stop()
        return None

    def clone3(self, call: Call) -> int | None:
        """clone3(2)."""
        packed = self._memory.read(call.pid, call.arguments[0], _FLAGS.size)
        flags = None if packed is None else _FLAGS.unpack(packed)[0]
        if flags and not may_make_namespaces(self._identity, call, flags & 0xFFFFFFFF):
            return -errno.EPERM
        if flags is None or flags & CLONE_NEWNS:
            self._views.varied = True
            self._status_files.stop()
        return None
