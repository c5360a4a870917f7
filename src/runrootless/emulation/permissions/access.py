"""Whether a process may use a file: permissions as path_resolution(7) and inode(7) have them.

To the kernel all processes of a container are one user, so it lets them do what emulated
users must not. Here a path is walked as the kernel does it, with a look at the permissions
of each directory for the emulated user.
"""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.call import Change, failure
from runrootless.emulation.callers.credentials import (
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    Credentials,
)
from runrootless.emulation.files.access_lists import ACCESS, AccessLists, permits
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.paths.resolution import PATH_MAX
from runrootless.emulation.paths.walk import Found, Nowhere
from runrootless.emulation.processes.process_files import ProcessFiles
from runrootless.emulation.processes.tracing import may_look
from runrootless.linux.files import AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, access, handle, is_procfs
from runrootless.linux.mounts import is_read_only
from runrootless.linux.processes import descriptor_mount, read_status, status_fields, threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.call import Call

READ = 4
WRITE = 2
EXECUTE = 1

AS_NAME = 1 << 31
"""A flag for ``Access.walk``: what a directory has by a name, which is not followed even with
slashes at its end."""

_SET_GROUP_ID = stat.S_ISGID | stat.S_IXGRP
_OPEN_AND_STICKY = stat.S_ISVTX | stat.S_IWOTH
# Of fs.protected_fifos and fs.protected_regular: in directories that a group may write to as well.
_GROUPS_TOO = 2


class Access(Handlers):
    """Walks paths and looks at permissions, for processes other than root's."""

    def __init__(
        self, shared: Shared, process_files: ProcessFiles, access_lists: AccessLists
    ) -> None:
        super().__init__(shared)
        self._process_files = process_files
        self._procfs = shared.procfs
        self._access_lists = access_lists
        self._protects_hard_links = self._protects_symlinks = 0
        self._protection = {stat.S_IFIFO: 0, stat.S_IFREG: 0}

    def look(self) -> None:
        """Find out what this host's rules are, once the agent has joined the container."""
        self._protects_hard_links = _protection(b"hardlinks")
        self._protects_symlinks = _protection(b"symlinks")
        self._protection[stat.S_IFIFO] = _protection(b"fifos")
        self._protection[stat.S_IFREG] = _protection(b"regular")

    def walk(
        self, call: Call, who: Credentials, directory: int, address: int, flags: int
    ) -> Found | None:
        """Return where the caller's path leads, None where that is the kernel's to find out.

        ``flags`` may hold AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW and AS_NAME. Raises OSError: EACCES
        where ``who`` may not search a directory on the way.
        """
        path = self._memory.read_string(call.pid, address)
        return None if path is None else self.walk_path(call, who, directory, path, flags)

    def walk_path(
        self, call: Call, who: Credentials, directory: int, path: bytes, flags: int
    ) -> Found | None:
        """Return where a path leads, as ``walk`` does for one in the caller's memory."""
        if len(path) >= PATH_MAX:
            return None
        try:
            if path and flags & AS_NAME:
                name = path.rstrip(b"/") or b"/"
                found = self._walk(call, who, directory, name, False)
                found.slash = len(name) < len(path)
                return found
            if path:
                return self._walk(call, who, directory, path, not flags & AT_SYMLINK_NOFOLLOW)
        except Nowhere:
            return None
        if not flags & AT_EMPTY_PATH:
            return None
        return Found(-1, b"", self._paths.open_descriptor(call.pid, directory))

    def _walk(
        self, call: Call, who: Credentials, directory: int, path: bytes, follows: bool
    ) -> Found:
        def search(parent: int, status: os.stat_result) -> None:
            self._require(call, who, parent, status, EXECUTE)

        def follow(parent: int, link: int) -> None:
            self._require_follow(call, who, parent, link)

        def jump(parent: int) -> None:
            try:
                process = self._process_files.process(parent)
            except (OSError, ValueError):
                return
            self._require_look(call, who, parent, process)

        protects = self._protects_symlinks
        return self._paths.walk(
            call.pid, directory, path, follows, search, follow if protects else None, jump
        )

    def require(self, call: Call, who: Credentials, file: int, want: int) -> None:
        """Raise EACCES unless ``who`` may do what ``want`` (READ, WRITE, EXECUTE) says.

        Where nobody may write, what the kernel says first: EPERM of what is immutable, as a
        process's directory in /proc and a namespace are, and EROFS.
        """
        self._require(call, who, file, os.fstat(file), want)

    def require_change(self, call: Call, who: Credentials, directory: int) -> None:
        """Raise EACCES unless ``who`` may change a directory, EROFS where nobody may."""
        with Change(directory):
            self.require(call, who, directory, WRITE | EXECUTE)

    def require_new(self, call: Call, who: Credentials, directory: int) -> None:
        """Do the same where a directory does not have what is to be made in it.

        Where there never is anything new, that is said first: ENOENT.
        """
        if not takes_nothing(directory):
            self.require_change(call, who, directory)

    def is_owner(self, call: Call, who: Credentials, file: int) -> bool:
        """Return whether a file is ``who``'s, or everyone's is by CAP_FOWNER."""
        owner, _ = self._owner(call, file, os.fstat(file))
        return owner == who.uids[3] or self._identity.may(call.pid, who, CAP_FOWNER)

    def require_link(self, call: Call, who: Credentials, file: int) -> None:
        """Raise EPERM unless ``who`` may make a hard link: fs.protected_hardlinks, proc(5)."""
        if not self._protects_hard_links or self.is_owner(call, who, file):
            return
        status = os.fstat(file)
        mode = status.st_mode
        is_set_id = mode & stat.S_ISUID or mode & _SET_GROUP_ID == _SET_GROUP_ID
        try:
            if stat.S_ISREG(mode) and not is_set_id:
                self._require(call, who, file, status, READ | WRITE)
                return
        except PermissionError:
            pass
        raise failure(errno.EPERM)

    def require_create(self, call: Call, who: Credentials, found: Found) -> None:
        """Raise EACCES unless ``who`` may open what is there with O_CREAT.

        fs.protected_fifos and fs.protected_regular, proc(5): may_create_in_sticky() in
        fs/namei.c.
        """
        mode = os.fstat(found.parent).st_mode
        kind = stat.S_IFMT(os.fstat(found.file).st_mode)
        level = self._protection.get(kind, 1)
        if not mode & stat.S_ISVTX or not level:
            return
        owner = self.owner(call, found.file)
        if owner in (who.uids[3], self.owner(call, found.parent)):
            return
        strict = level >= _GROUPS_TOO and kind in self._protection
        if mode & stat.S_IWOTH or (strict and mode & stat.S_IWGRP):
            raise failure(errno.EACCES)

    def require_look(self, call: Call, who: Credentials, found: Found) -> None:
        """Raise EACCES unless ``who`` may look into the process that a file is about.

        As ptrace(2) has it, of those files of procfs that this guards.
        """
        process = self._process_files.guarding(found.file) if found.file >= 0 else None
        if process is not None:
            self._require_look(call, who, found.parent, process)

    def _require_look(
        self, call: Call, who: Credentials, directory: int, process: tuple[Credentials, bool]
    ) -> None:
        if directory >= 0 and self._procfs.is_of_caller(directory, call.pid):
            return
        if not may_look(self._identity, call.pid, who, [process], by_file_system_ids=True):
            raise failure(errno.EACCES)

    def owner(self, call: Call, file: int) -> int:
        """Return the user ID of a file's owner."""
        return self._owner(call, file, os.fstat(file))[0]

    def group(self, call: Call, file: int) -> int:
        """Return the group ID of a file."""
        return self._owner(call, file, os.fstat(file))[1]

    def _require_follow(self, call: Call, who: Credentials, directory: int, link: int) -> None:
        """Raise EACCES unless ``who`` may follow a symlink: fs.protected_symlinks, proc(5)."""
        if os.fstat(directory).st_mode & _OPEN_AND_STICKY == _OPEN_AND_STICKY:
            owner = self.owner(call, link)
            if owner not in (who.uids[3], self.owner(call, directory)):
                raise failure(errno.EACCES)

    def _require(
        self, call: Call, who: Credentials, file: int, status: os.stat_result, want: int
    ) -> None:
        mode = self._host_files.mode(status)
        owner, group = self._owner(call, file, status)
        if self._is_granted(who, file, mode, owner, group, want):
            return
        is_directory = stat.S_ISDIR(mode)
        reads = want == READ or (is_directory and not want & WRITE)
        if reads and self._identity.may(call.pid, who, CAP_DAC_READ_SEARCH):
            return
        executes = want & EXECUTE and not is_directory
        if (not executes or mode & 0o111) and self._identity.may(call.pid, who, CAP_DAC_OVERRIDE):
            return
        if self._process_files.concerns(status.st_dev) and _is_of_itself(call.pid, file, want):
            return
        raise failure(_reason(file, want) if want & WRITE else errno.EACCES)

    def _is_granted(
        self, who: Credentials, file: int, mode: int, owner: int, group: int, want: int
    ) -> bool:
        """Return whether mode and access control list grant ``want``: acl_permission_check()."""
        fsuid = who.uids[3]
        if fsuid == owner:
            return not want & ~(mode >> 6)
        if mode & stat.S_IRWXG:
            entries = self._access_lists.get(file, ACCESS)
            if entries is not None:
                return permits(entries, fsuid, who.in_group, group, want)
        return not want & ~(mode >> 3 if who.in_group(group) else mode)

    def _owner(self, call: Call, file: int, status: os.stat_result) -> tuple[int, int]:
        kept = self._kept_owner(call, file, status)
        if kept is not None:
            return kept
        if self._process_files.concerns(status.st_dev):
            return self._process_files.owner(call, file, False) or (0, 0)
        return 0, 0


def _is_of_itself(caller: int, file: int, want: int) -> bool:
    """Return whether a file in a procfs is of those that a process may use, whosoever it is.

    Its own descriptors and mapped files, and the names of its threads: proc_fd_permission() in
    fs/proc/fd.c, and proc_tid_comm_permission() in fs/proc/base.c.
    """
    *before, number, name = os.readlink(handle(file)).split(b"/")
    if name not in (b"fd", b"map_files") and (
        name != b"comm" or before[-1:] != [b"task"] or want & EXECUTE
    ):
        return False
    return any(number in status_fields(read_status(one), b"NSpid") for one in threads(caller))


def _reason(file: int, want: int) -> int:
    """Return the error number with which the kernel refuses somebody to write to a file.

    inode_permission() in fs/namei.c: what holds for all, and so for this process, comes first.
    A read-only mount comes later than permissions, unlike a read-only file system.
    """
    number = access(file, want)
    if number == errno.EPERM or (number == errno.EROFS and is_read_only(descriptor_mount(file))):
        return number
    return errno.EACCES


def _protection(what: bytes) -> int:
    """Return the level of a sysctl ``fs.protected_...``, 0 where there is none."""
    try:
        # Of the agent's /proc, which is its working directory.
        with open(b"sys/fs/protected_" + what, "rb", buffering=0) as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def takes_nothing(directory: int) -> bool:
    """Return whether nothing can be made in a directory: it is a procfs's, or has been removed."""
    return is_procfs(directory) or not os.fstat(directory).st_nlink
