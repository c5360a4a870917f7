"""New files and their owners.

The kernel makes every new file root's, which is right for most. The calls that make
one are let through unless the caller is another user, or the directory passes on its
group (set-group-ID) or named entries of its default access control list: then the agent
makes the file in the caller's name and records that before anybody sees it.
"""

from __future__ import annotations

import os
import stat
import struct

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.files.access_lists import AccessLists
from runrootless.emulation.files.streams import Streams
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.owners.devices import Devices
from runrootless.emulation.paths.walk import Found, open_child
from runrootless.emulation.processes.process_files import ProcessFiles
from runrootless.emulation.stores.record import NOTHING, Record
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
_SET_GROUP_ID = stat.S_ISGID | stat.S_IXGRP


class Creation(Handlers):
    """Handlers of the calls that make files."""

    def __init__(
        self,
        shared: Shared,
        devices: Devices,
        process_files: ProcessFiles,
        access_lists: AccessLists,
        streams: Streams,
    ) -> None:
        super().__init__(shared)
        self._streams = streams
        self._access_lists = access_lists
        self._devices = devices
        self._process_files = process_files

    def open(self, call: Call) -> int | None:
        """open(2) that may make a file, or with flags that few programs use."""
        path, flags, mode = call.arguments[:3]
        return self._open(call, AT_FDCWD, path, flags, mode)

    def creat(self, call: Call) -> int | None:
        """creat(2)."""
        path, mode = call.arguments[:2]
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        return self._open(call, AT_FDCWD, path, flags, mode)

    def openat(self, call: Call) -> int | None:
        """openat(2) that may make a file, or with flags that few programs use."""
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

    def owner(self, call: Call, parent: int) -> Record | None:
        """Return who a new file of the caller's in an open directory belongs to.

        None where there is nothing to record: it is root's in all.
        """
        credentials = self._identity.of(call.pid)
        uid, gid = credentials.uids[3], credentials.gids[3]
        if self._files.stat(parent) < 0:
            return None
        group = self._passed_on(parent)
        if group is not None:
            gid = group
        if uid or gid or self._access_lists.named_default(parent) is not None:
            return Record(uid, gid)
        return None

    def mode(self, call: Call, parent: int, mode: int) -> int:
        """Return the mode, before the mask, of a new file in an open directory.

        It lacks the set-group-ID bit where the directory passes on the group of others:
        mode_strip_sgid() in fs/inode.c. Not for directories.
        """
        if mode & _SET_GROUP_ID != _SET_GROUP_ID or self._files.stat(parent) < 0:
            return mode
        group = self._passed_on(parent)
        who = self._identity.of(call.pid)
        if group is None or self._identity.may_set_group_id(call.pid, who, group):
            return mode
        return mode & ~stat.S_ISGID

    def _passed_on(self, parent: int) -> int | None:
        """Return the group that new files get of the directory that was looked at last.

        None where it is their maker's own.
        """
        device, inode, mode, _ = self._files.found()
        if not mode & stat.S_ISGID:
            return None
        found = self._ownership.find(parent, mode, device, inode)
        return found.gid if found is not None else 0

    def make(
        self,
        call: Call,
        found: Found,
        record: Record,
        make: Callable[[], object],
        undo: Callable[..., None] = os.unlink,
    ) -> int:
        """Make a file that is not opened, with the caller's mask, and record its owner.

        ``make`` makes it where ``found`` says, ``record`` is what to keep of it, and ``undo``
        removes it again where that fails, or where the call is interrupted before the caller
        has its answer. Raises OSError as the call does.
        """
        mask = creation_mask(call.pid)
        require_valid(call)
        old_mask = os.umask(mask)
        try:
            make()
        finally:
            os.umask(old_mask)
        file = -1
        try:
            file = open_child(found.parent, found.name)
            if file >= 0:
                self._keep(file, found.parent, record)
            if not call.answer(0):
                # The caller repeats it, or takes it for not done.
                _undo(found, file, undo)
        except BaseException:
            _undo(found, file, undo)
            raise
        finally:
            if file >= 0:
                os.close(file)
        return Call.ANSWERED

    def _open(self, call: Call, directory: int, path: int, flags: int, mode: int) -> int | None:
        if flags & O_PATH:
            # The kernel drops most other flags then: open(2).
            return None
        temporary = flags & O_TMPFILE == O_TMPFILE
        creates_new = flags & os.O_CREAT and flags & os.O_EXCL
        nofollow = AT_SYMLINK_NOFOLLOW if flags & os.O_NOFOLLOW else 0
        try:
            if flags & os.O_CREAT and not temporary:
                found = self._paths.find(call, directory, path, not (nofollow or creates_new))
            else:
                file = self._paths.open(call, directory, path, nofollow)
                found = Found(-1, b"", file)
        except OSError:
            return None
        with found:
            if temporary:
                return self._open_new(call, found.file, b".", flags, mode)
            if found.file >= 0:
                is_refused = creates_new or found.slash
                return None if is_refused else self._open_existing(call, found.file, flags)
            if found.slash or not found.has_room():
                return None
            # Another process may make it meanwhile: then this fails, and the kernel opens that one.
            flags |= os.O_EXCL
            return self._open_new(call, found.parent, found.name, flags, mode, found)

    def _open_new(
        self,
        call: Call,
        parent: int,
        name: bytes,
        flags: int,
        mode: int,
        found: Found | None = None,
    ) -> int | None:
        """Make a file in a directory and open it, if there is an owner to record.

        ``found`` is where it has a name.
        """
        record = self.owner(call, parent)
        kept = self.mode(call, parent, mode)
        if record is None:
            if kept == mode:
                return None
            record = NOTHING
        mask = creation_mask(call.pid)
        require_valid(call)
        old_mask = os.umask(mask)
        try:
            fd = os.open(name, flags & 0x7FFFFFFF | os.O_NOCTTY, kept & 0o7777, dir_fd=parent)
        except OSError:
            # The kernel will tell the caller the same.
            return None
        finally:
            os.umask(old_mask)
        try:
            self._keep(fd, parent, record)
            call.answer_with_fd(fd, flags & os.O_CLOEXEC)
        except BaseException:
            # No room for the record, no descriptor left, or interrupted: then there is no file.
            if found is not None:
                _undo(found, fd, os.unlink)
            raise
        finally:
            os.close(fd)
        return Call.ANSWERED

    def _open_existing(self, call: Call, file: int, flags: int) -> int | None:
        """Open what an emulated device node stands for, a terminal, or a process's file.

        All else is the kernel's.
        """
        if flags & os.O_DIRECTORY:
            return None
        status = os.fstat(file)
        if stat.S_ISCHR(status.st_mode) and not status.st_rdev:
            fd = self._devices.open(call.pid, file, flags & _REOPENING, status)
        elif stat.S_ISCHR(status.st_mode):
            fd = self._streams.open_master(call, file, flags & _REOPENING, status)
        elif flags & _WRITING:
            return None
        else:
            fd = self._process_files.open_copy(file)
        if fd is None:
            return None
        try:
            require_valid(call)
            call.answer_with_fd(fd, flags & os.O_CLOEXEC)
        finally:
            os.close(fd)
        return Call.ANSWERED

    def _mkdir(self, call: Call, directory: int, path: int, mode: int) -> int | None:
        with self._find(call, directory, path) as found:
            record = self.owner(call, found.parent) if found.has_room() else None
            if record is None:
                return None
            return self.make(
                call,
                found,
                record,
                lambda: os.mkdir(found.name, mode & 0o7777, dir_fd=found.parent),
                os.rmdir,
            )

    def _symlink(self, call: Call, target: int, directory: int, path: int) -> int | None:
        text = self._memory.read_string(call.pid, target)
        if not text:
            return None
        with self._find(call, directory, path) as found:
            can_be = found.has_room() and not found.slash
            record = self.owner(call, found.parent) if can_be else None
            if record is None:
                return None
            return self.make(
                call, found, record, lambda: os.symlink(text, found.name, dir_fd=found.parent)
            )

    def _find(self, call: Call, directory: int, path: int) -> Found:
        """Return where a path leads, which is not followed; nowhere where that is an error."""
        try:
            return self._paths.find(call, directory, path, False)
        except OSError:
            # The kernel will tell the caller the same.
            return Found(-1, b"", -1)

    def _keep(self, file: int, parent: int, record: Record) -> None:
        """Record what there is to record of a new file in a directory. Raises OSError."""
        self._ownership.keep_new(file, record)
        self._access_lists.inherit(parent, file)


def _undo(found: Found, file: int, undo: Callable[..., None]) -> None:
    """Remove a file that was made, and cannot be as it should be, if it is still there.

    ``file`` is a descriptor of it, or -1 where none was to be had.
    """
    try:
        there = os.stat(found.name, dir_fd=found.parent, follow_symlinks=False)
        if file < 0 or os.path.samestat(there, os.fstat(file)):
            undo(found.name, dir_fd=found.parent)
    except OSError:
        # Somebody else has removed it.
        pass


def read_how(memory: Memory, pid: int, address: int, size: int) -> tuple[int, int, int] | None:
    """Return flags, mode and resolve of a ``struct open_how``, None if that cannot be read."""
    data = memory.read(pid, address, _OPEN_HOW.size) if size >= _OPEN_HOW.size else None
    if data is None:
        return None
    flags, mode, resolve = _OPEN_HOW.unpack(data)
    return flags, mode, resolve
