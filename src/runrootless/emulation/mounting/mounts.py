"""Mounting: mount(2) and umount2(2) where root of a user namespace cannot do as real root.

Most mounts are let through: the kernel allows them in the container's user namespace.
A file system of processes or of the kernel's objects is not among them, since parts of
the container's own are covered and its network is the host's; what would be mounted is
the same as the container has already, which is bound. The options uid= and gid= name
IDs that the kernel has no number for.
"""

from __future__ import annotations

import errno
import os

from runrootless.emulation.call import Call, failure, require_valid
from runrootless.emulation.callers.credentials import CAP_SYS_ADMIN
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.paths.walk import Found, open_child
from runrootless.emulation.processes.privileges import lacks
from runrootless.emulation.processes.status_files import StatusFiles
from runrootless.emulation.stores.record import Record
from runrootless.linux.capabilities import is_effective
from runrootless.linux.files import AT_FDCWD, AT_SYMLINK_NOFOLLOW, handle
from runrootless.linux.mounts import (
    MNT_DETACH,
    MS_BIND,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PROPAGATION,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    UMOUNT_NOFOLLOW,
    mount,
    unmount,
)
from runrootless.linux.processes import descriptor_mount, shares_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.mounting.roots import Views

_NAME_LIMIT = 64
_TREES_LIMIT = 4096
# MNT_EXPIRE, and flags that nobody has defined.
_NOT_BY_THE_AGENT = ~(MNT_DETACH | UMOUNT_NOFOLLOW | 1)
_OWNER_OPTIONS = (b"uid=", b"gid=")
_WITH_OWNER_OPTIONS = (b"tmpfs", b"devpts")
_OTHER_REQUESTS = MS_REMOUNT | MS_BIND | MS_MOVE | MS_PROPAGATION
# The flags that a bind mount has of its own, and how statvfs(3) reports them.
_OWN_FLAGS = {
    MS_RDONLY: os.ST_RDONLY,
    MS_NOSUID: os.ST_NOSUID,
    MS_NODEV: os.ST_NODEV,
    MS_NOEXEC: os.ST_NOEXEC,
}


class Mounts(Handlers):
    """Handlers of mount(2), fsopen(2) and umount2(2)."""

    def __init__(self, shared: Shared, status_files: StatusFiles, views: Views) -> None:
        super().__init__(shared)
        self._status_files = status_files
        self._stand_ins = shared.stand_ins
        self._views = views
        # By type of the file system: where the container has it, its st_dev, and the
        # namespace that it shows.
        self._own: dict[bytes, tuple[str, int, str, int]] = {}
        # The mounts that have others below, by number.
        self._trees: set[int] = set()

    def look(self) -> None:
        """Take note of the container's /proc and /sys, once the agent has joined it."""
        for kind, path, namespace, examples in (
            # The agent has no number in a pid namespace of the container's, its first process 1.
            (b"proc", "/proc", "pid", ("/proc/self", "/proc/1")),
            (b"sysfs", "/sys", "net", ("self",)),
        ):
            for example in examples:
                try:
                    number = os.stat(f"{example}/ns/{namespace}").st_ino
                    self._own[kind] = (path, os.stat(path).st_dev, namespace, number)
                    break
                except OSError:
                    continue

    def mount(self, call: Call) -> int | None:
        """mount(2)."""
        _, target, kind, flags, data = call.arguments[:5]
        if lacks(self._identity, call, CAP_SYS_ADMIN):
            return self._denied(call, target)
        if flags & _OTHER_REQUESTS or not kind or not _may_mount(call.pid):
            return None
        name = self._memory.read_string(call.pid, kind, _NAME_LIMIT)
        if name in self._own:
            return self._mount_own(call, target, name, flags)
        if name in _WITH_OWNER_OPTIONS and data:
            return self._mount_without_owner(call, target, name, flags, data)
        return None

    def fsopen(self, call: Call) -> int | None:
        """fsopen(2): as on a kernel without it, where mount(2) has a meaning of its own here."""
        if lacks(self._identity, call, CAP_SYS_ADMIN):
            return -errno.EPERM
        name = self._memory.read_string(call.pid, call.arguments[0], _NAME_LIMIT)
        return -errno.ENOSYS if name in self._own or name in _WITH_OWNER_OPTIONS else None

    def umount(self, call: Call) -> int | None:
        """umount2(2)."""
        if lacks(self._identity, call, CAP_SYS_ADMIN):
            return -errno.EPERM
        self._status_files.remove()
        self._ownership.expectations.release()
        self._stand_ins.release()
        target, flags = call.arguments[:2]
        if not self._trees or flags & _NOT_BY_THE_AGENT:
            return None
        nofollow = AT_SYMLINK_NOFOLLOW if flags & UMOUNT_NOFOLLOW else 0
        fd = self._paths.open(call, AT_FDCWD, target, nofollow)
        try:
            mount_id = descriptor_mount(fd)
            if mount_id not in self._trees or not _may_mount(call.pid):
                return None
            require_valid(call)
            # Were it the file system alone, nothing mounted below would be in the way.
            unmount(handle(fd), MNT_DETACH)
            self._trees.discard(mount_id)
        finally:
            os.close(fd)
        return 0

    def old_umount(self, call: Call) -> int | None:
        """umount(2) of 32-bit programs, which has no flags."""
        call.arguments[1] = 0
        return self.umount(call)

    def _denied(self, call: Call, target: int) -> int:
        # The kernel looks for the directory before it looks at the privilege.
        os.close(self._paths.open(call, AT_FDCWD, target, 0))
        return -errno.EPERM

    def _mount_own(self, call: Call, target: int, kind: bytes, flags: int) -> int | None:
        """Bind the container's own file system of this type; None where there is a reason not to.

        That is for a process with another namespace than the file system shows.
        """
        own, device, namespace, number = self._own[kind]
        if os.stat(f"{call.pid}/ns/{namespace}").st_ino != number:
            return None
        with self._find(call, target) as found:
            try:
                # In another mount namespace it is another mount.
                source = self._views.open_outside(call.pid, own)
            except FileNotFoundError:
                return None
            try:
                if os.fstat(source).st_dev != device:
                    return None
                require_valid(call)
                has_others_below = _bind(handle(source), handle(found.file))
            finally:
                os.close(source)
            return self._finish(call, found, flags, has_others_below)

    def _find(self, call: Call, target: int) -> Found:
        """Return where something is to be mounted. Raises OSError as the kernel does."""
        found = self._paths.find(call, AT_FDCWD, target, True)
        if found.file < 0:
            found.close()
            raise failure(errno.ENOENT)
        return found

    def _finish(self, call: Call, found: Found, flags: int, has_others_below: bool) -> int:
        """Give a new bind mount the flags that were asked for, besides those it has.

        And the caller its answer.
        """
        fd = _open_mounted(found)
        try:
            if has_others_below and len(self._trees) < _TREES_LIMIT:
                self._trees.add(descriptor_mount(fd))
            there = os.fstatvfs(fd).f_flag
            kept = sum(flag for flag, reported in _OWN_FLAGS.items() if there & reported)
            wanted = kept | flags & sum(_OWN_FLAGS)
            if wanted != kept:
                mount(None, handle(fd), None, MS_REMOUNT | MS_BIND | wanted, None)
            return self._answer(call, found, fd)
        finally:
            os.close(fd)

    def _answer(self, call: Call, found: Found, fd: int) -> int:
        """Tell the caller that what ``fd`` refers to is mounted.

        It is unmounted where the caller has been interrupted, which then takes it for not done.
        """
        if not call.answer(0):
            mount_id = descriptor_mount(fd)
            if mount_id != descriptor_mount(found.file):
                self._trees.discard(mount_id)
                unmount(handle(fd), MNT_DETACH)
        return Call.ANSWERED

    def _mount_without_owner(
        self, call: Call, target: int, kind: bytes, flags: int, data: int
    ) -> int | None:
        """Mount without the options that name IDs, and record these of the new root."""
        text = self._memory.read_string(call.pid, data)
        if text is None:
            return None
        options = text.split(b",")
        ids = [option for option in options if option.startswith(_OWNER_OPTIONS)]
        owner = {option[:3]: int(option[4:]) for option in ids if option[4:].isdigit()}
        if len(owner) != len(ids) or not any(owner.values()):
            return None
        source = self._memory.read_string(call.pid, call.arguments[0]) or kind
        rest = b",".join(option for option in options if option not in ids)
        with self._find(call, target) as found:
            require_valid(call)
            mount(source, handle(found.file), kind, flags, rest)
            fd = _open_mounted(found)
            try:
                if kind == b"tmpfs":
                    record = Record(owner.get(b"uid", 0), owner.get(b"gid", 0))
                    self._ownership.keep_new(fd, record)
                return self._answer(call, found, fd)
            finally:
                os.close(fd)


def _open_mounted(found: Found) -> int:
    """Return a descriptor of what has been mounted somewhere. Raises OSError.

    Where that is the root directory, or was found by a link of a procfs, it is what is below:
    no way leads to the other from there.
    """
    mounted = open_child(found.parent, found.name) if found.parent >= 0 else -1
    return mounted if mounted >= 0 else os.dup(found.file)


def _may_mount(pid: int) -> bool:
    """Return whether the kernel lets a thread mount in the container's user namespace.

    Raises OSError where it is gone.
    """
    return shares_user_namespace(pid) and is_effective(pid, CAP_SYS_ADMIN)


def _bind(source: bytes, target: bytes) -> bool:
    """Bind a directory; return whether with what is mounted in it. Raises OSError."""
    try:
        mount(source, target, None, MS_BIND, None)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Not to be had without what is mounted in it.
        mount(source, target, None, MS_BIND | MS_REC, None)
        return True
    return False
