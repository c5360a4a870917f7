"""Giving files away: chown(2) and its relatives, recorded instead of carried out."""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.call import Call, Change, failure, require_valid
from runrootless.emulation.callers.credentials import (
    CAP_CHOWN,
    CAP_FOWNER,
    NO_CHANGE,
    Credentials,
)
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.processes.process_files import ProcessFiles
from runrootless.emulation.stores.record import NOTHING, Record
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, handle


class Chown(Handlers):
    """Handlers of the chown family."""

    def __init__(self, shared: Shared, process_files: ProcessFiles) -> None:
        super().__init__(shared)
        self._process_files = process_files

    def chown(self, call: Call) -> int:
        """chown(2)."""
        path, uid, gid = call.arguments[:3]
        return self._chown_path(call, AT_FDCWD, path, uid, gid, 0)

    def lchown(self, call: Call) -> int:
        """lchown(2)."""
        path, uid, gid = call.arguments[:3]
        return self._chown_path(call, AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW)

    def fchownat(self, call: Call) -> int:
        """fchownat(2)."""
        _, path, uid, gid, flags = call.arguments[:5]
        flags &= 0xFFFFFFFF
        if flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW):
            return -errno.EINVAL
        return self._chown_path(call, call.descriptor(0), path, uid, gid, flags)

    def fchown(self, call: Call) -> int:
        """fchown(2)."""
        _, uid, gid = call.arguments[:3]
        file = self._paths.open_file(call, call.descriptor(0))
        try:
            self._change(call, file, uid, gid)
        finally:
            os.close(file)
        return 0

    def _chown_path(
        self, call: Call, directory: int, path: int, uid: int, gid: int, flags: int
    ) -> int:
        file = self._paths.open(call, directory, path, flags)
        try:
            self._change(call, file, uid, gid)
        finally:
            os.close(file)
        return 0

    def _change(self, call: Call, file: int, uid: int, gid: int) -> None:
        uid &= 0xFFFFFFFF
        gid &= 0xFFFFFFFF
        credentials = self._identity.of(call.pid)
        result = self._files.stat(file)
        if result < 0:
            raise failure(-result)
        device, inode, mode, kernel_uid = self._files.found()
        old = self._ownership.find(file, mode, device, inode)
        of_process = None
        if old is None and device in self._makers.devices:
            old = Record(*self._makers.owner(device, inode, credentials))
        elif old is None:
            if self._process_files.concerns(device):
                of_process = self._process_files.owner(call, file, False)
            old = NOTHING if of_process is None else Record(*of_process)
        new_uid = old.uid if uid == NO_CHANGE else uid
        new_gid = old.gid if gid == NO_CHANGE else gid
        changes = new_uid != old.uid or new_gid != old.gid
        if not (
            _may_change(credentials, old, uid, gid)
            or self._identity.may(call.pid, credentials, CAP_CHOWN)
        ):
            with Change(file):
                raise failure(errno.EPERM)
        if of_process is not None:
            # The kernel says whether it may be, and gives it back to the process soon.
            require_valid(call)
            os.chown(handle(file), *(-1 if one == NO_CHANGE else 0 for one in (uid, gid)))
            return
        kept = self._kept_mode(call, credentials, mode, old.gid, new_gid)
        if (
            kept != mode
            and credentials.uids[3] != old.uid
            and not self._identity.may(call.pid, credentials, CAP_FOWNER)
        ):
            # Only the owner may change a mode, also where the owner and group stay.
            with Change(file):
                raise failure(errno.EPERM)
        require_valid(call)
        try:
            # The kernel clears the set-ID bits and file capabilities, and changes st_ctime.
            os.chown(handle(file), -1, -1)
            if changes:
                new = old.with_owner(new_uid, new_gid)
                self._ownership.keep(file, mode, device, inode, new)
                if device in self._makers.devices:
                    # Without a record, as of root's, it would be its holder's.
                    self._makers.give(device, inode, (new_uid, new_gid))
        except PermissionError:
            # A file of someone else's on the host looks like root's: it may be "given" to root.
            if not changes and kernel_uid:
                return
            if not changes or not self._host_files.contains(file, os.fstat(file)):
                raise
            birth = self._files.birth_time(file)
            self._ownership.give(device, inode, birth, old.with_owner(new_uid, new_gid))
            return
        if kept != mode:
            os.chmod(handle(file), stat.S_IMODE(kept))

    def _kept_mode(
        self, call: Call, who: Credentials, mode: int, group: int, new_group: int
    ) -> int:
        """Return the mode of a file that has been in a group and gets into another one.

        chown_common() in fs/open.c, setattr_should_drop_sgid() and setattr_copy() in fs/attr.c.
        """
        if stat.S_ISDIR(mode):
            return mode
        kept = mode & ~stat.S_ISUID
        if mode & stat.S_ISGID and (
            mode & stat.S_IXGRP
            or not self._identity.may_set_group_id(call.pid, who, group)
            or (kept != mode and not self._identity.may_set_group_id(call.pid, who, new_group))
        ):
            kept &= ~stat.S_ISGID
        return kept


def _may_change(credentials: Credentials, old: Record, uid: int, gid: int) -> bool:
    """Return whether a process without privileges may give a file away: chown(2)."""
    owner = credentials.uids[3] == old.uid
    if uid != NO_CHANGE and not (owner and uid == old.uid):
        return False
    return gid == NO_CHANGE or (owner and (gid == old.gid or credentials.in_group(gid)))
