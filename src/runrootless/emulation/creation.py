"""New files: whose they are.

The kernel makes every new file root's, which is right for most. The calls that make
one are let through unless the creator is somebody else, or the directory passes on its
group (set-group-ID) or named entries of its default access control list: then the agent
makes the file in the caller's name and records that before anybody sees it.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from runrootless.emulation.access_lists import AccessLists
from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.devices import Devices
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.process_files import ProcessFiles
from runrootless.emulation.record import Record
from runrootless.linux.files import AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_PATH
from runrootless.linux.memory import Memory
from runrootless.linux.processes import creation_mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

O_TMPFILE = 0o20000000
"""The bit of O_TMPFILE that is not O_DIRECTORY's."""

_CREATING = os.O_CREAT | O_TMPFILE
_WRITING = _CREATING | os.O_TRUNC | os.O_ACCMODE
_REOPENING = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_SYNC | os.O_DSYNC
_OPEN_HOW = struct.Struct("=3Q")


class Creation(Handlers):
    """Handlers of the calls that make files."""

    def __init__(
        self,
        shared: Shared,
        devices: Devices,
        process_files: ProcessFiles,
        access_lists: AccessLists,
    ) -> None:
        super().__init__(shared)
        self._access_lists = access_lists
        self._devices = devices
        self._process_files = process_files

    def open(self, call: Call) -> int | None:
        """open(2) that may make a file, and others whose flags are few programs'."""
        path, flags, mode = call.arguments[:3]
        return self._open(call, AT_FDCWD, path, flags, mode)

    def creat(self, call: Call) -> int | None:
        """creat(2)."""
        path, mode = call.arguments[:2]
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        return self._open(call, AT_FDCWD, path, flags, mode)

    def openat(self, call: Call) -> int | None:
        """openat(2) that may make a file, and others whose flags are few programs'."""
        _, path, flags, mode = call.arguments[:4]
        return self._open(call, call.descriptor(0), path, flags, mode)

    def openat2(self, call: Call) -> int | None:
        """openat2(2); a path that is to be resolved in a special way is the kernel's."""
        _, path, how, size = call.arguments[:4]
        found = read_how(self._memory, call.pid, how, size)
        if found is None or size > _OPEN_HOW.size:
            return None
        flags, mode, resolve = found
        if resolve:
            return None
        return self._open(call, call.descriptor(0), path, flags, mode)

    def mkdir(self, call: Call) -> int | None:
        """mkdir(2)."""
        path, mode = call.arguments[:2]
        return self._mkdir(call, AT_FDCWD, path, mode)

    def mkdirat(self, call: Call) -> int | None:
        """mkdirat(2)."""
        _, path, mode = call.arguments[:3]
        return self._mkdir(call, call.descriptor(0), path, mode)

    def symlink(self, call: Call) -> int | None:
        """symlink(2)."""
        target, path = call.arguments[:2]
        return self._symlink(call, target, AT_FDCWD, path)

    def symlinkat(self, call: Call) -> int | None:
        """symlinkat(2)."""
        target, _, path = call.arguments[:3]
        return self._symlink(call, target, call.descriptor(1), path)

    def owner(self, call: Call, name: bytes) -> Record | None:
        """Return who a new file ``name`` of the caller's belongs to.

        None where there is nothing to record: it is root's in all.
        """
        credentials = self._identity.of(call.pid)
        uid, gid = credentials.uids[3], credentials.gids[3]
        parent = parent_of(name)
        if self._files.stat(parent, 0) < 0:
            return None
        if self._files.mode() & stat.S_ISGID:
            device, inode, mode, _ = self._files.found()
            found = self._ownership.find(parent, 0, mode, device, inode)
            gid = found.gid if found is not None else 0
        if uid or gid or self._access_lists.named_default(parent) is not None:
            return Record(uid, gid)
        return None

    def make(
        self, call: Call, directory: int, name: bytes, record: Record, make: Callable[[], object]
    ) -> int:
        """Make a file that is not opened, with the caller's mask, and record its owner.

        ``make`` does it; ``record`` is what to keep of it. Return 0 or a negative error number.
        """
        mask = creation_mask(call.pid)
        require_valid(call)
        old_mask = os.umask(mask)
        try:
            make()
        except OSError as error:
            return self._paths.explain(call, directory, name, -(error.errno or errno.EIO))
        finally:
            os.umask(old_mask)
        fd = self._files.open_path(name.rstrip(b"/"), AT_SYMLINK_NOFOLLOW)
        if fd >= 0:
            self._keep(fd, name, record)
        return 0

    def _open(self, call: Call, directory: int, path: int, flags: int, mode: int) -> int | None:
        if flags & O_PATH:
            # The kernel drops most other flags then: open(2).
            return None
        try:
            name, _ = self._paths.name(call, directory, path, 0)
        except OSError:
            return None
        temporary = flags & O_TMPFILE == O_TMPFILE
        if not temporary and not flags & os.O_EXCL:
            nofollow = AT_SYMLINK_NOFOLLOW if flags & os.O_NOFOLLOW else 0
            if self._files.stat(name, nofollow) == 0:
                return self._open_existing(call, name, flags, nofollow)
        if not flags & _CREATING:
            return None
        made = name + b"/." if temporary else name
        record = self.owner(call, made)
        if record is None or (not temporary and self._files.stat(name, 0) == 0):
            return None
        mask = creation_mask(call.pid)
        require_valid(call)
        old_mask = os.umask(mask)
        try:
            # Never waiting: should it be a fifo by now, the agent must not hang.
            fd = os.open(name, flags & 0x7FFFFFFF | os.O_NONBLOCK | os.O_NOCTTY, mode & 0o7777)
        except OSError:
            # The kernel will tell the caller the same.
            return None
        finally:
            os.umask(old_mask)
        try:
            if not flags & os.O_NONBLOCK:
                os.set_blocking(fd, True)
            self._keep(os.dup(fd), made, record)
            call.answer_with_fd(fd, flags & os.O_CLOEXEC)
        finally:
            os.close(fd)
        return Call.ANSWERED

    def _open_existing(self, call: Call, name: bytes, flags: int, nofollow: int) -> int | None:
        """Open what an emulated device node stands for, or what a process's file is to say.

        All else is the kernel's.
        """
        if flags & os.O_DIRECTORY:
            return None
        if stat.S_ISCHR(self._files.mode()) and not self._files.device():
            status = os.stat(name)
            fd = self._devices.open(
                name, flags & _REOPENING, status.st_mode, status.st_dev, status.st_ino
            )
        elif flags & _WRITING:
            return None
        else:
            fd = self._process_files.open_copy(name, nofollow)
        if fd is None:
            return None
        try:
            require_valid(call)
            call.answer_with_fd(fd, flags & os.O_CLOEXEC)
        finally:
            os.close(fd)
        return Call.ANSWERED

    def _mkdir(self, call: Call, directory: int, path: int, mode: int) -> int | None:
        name, record = self._name_and_owner(call, directory, path)
        if record is None:
            return None
        return self.make(call, directory, name, record, lambda: os.mkdir(name, mode & 0o7777))

    def _symlink(self, call: Call, target: int, directory: int, path: int) -> int | None:
        name, record = self._name_and_owner(call, directory, path)
        text = self._memory.read_string(call.pid, target)
        if record is None or not text:
            return None
        return self.make(call, directory, name, record, lambda: os.symlink(text, name))

    def _name_and_owner(self, call: Call, directory: int, path: int) -> tuple[bytes, Record | None]:
        try:
            name, _ = self._paths.name(call, directory, path, 0)
        except OSError:
            return b"", None
        return name, self.owner(call, name)

    def _keep(self, fd: int, name: bytes, record: Record) -> None:
        """Record what there is to record of a new file, which is open, and close it."""
        try:
            status = os.fstat(fd)
            handle = b"self/fd/%d" % fd
            self._ownership.keep(handle, status.st_mode, status.st_dev, status.st_ino, record)
            self._access_lists.inherit(parent_of(name), handle, stat.S_ISDIR(status.st_mode))
        finally:
            os.close(fd)


def parent_of(name: bytes) -> bytes:
    """Return the name of the directory that a file is made in."""
    return name.rstrip(b"/").rpartition(b"/")[0] or b"/"


def read_how(memory: Memory, pid: int, address: int, size: int) -> tuple[int, int, int] | None:
    """Return flags, mode and resolve of a ``struct open_how``, None if that cannot be read."""
    data = memory.read(pid, address, _OPEN_HOW.size) if size >= _OPEN_HOW.size else None
    if data is None:
        return None
    flags, mode, resolve = _OPEN_HOW.unpack(data)
    return flags, mode, resolve
