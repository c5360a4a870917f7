"""Mounts: mount(2), umount2(2), open_tree(2), move_mount(2), <linux/mount.h>."""

from __future__ import annotations

import os
import sys
import zlib

from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD
from runrootless.linux.libc import c_char_p, c_int, c_long, c_uint, c_ulong, check, function

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PROPAGATION = 0x1E0000
"""MS_SHARED, MS_PRIVATE, MS_SLAVE and MS_UNBINDABLE."""

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# The same on every machine.
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_OPEN_TREE_CLONE = 1
_AT_RECURSIVE = 0x8000
_MOVE_MOUNT_EMPTY_PATHS = 0x04 | 0x40

_MOUNT_SETATTR = 442
_MOUNT_ATTR_RDONLY = 1

_LASTING = 1 << 63

# The backslash is the last one: what it stands before is none of these then.
_ESCAPED = ((rb"\040", b" "), (rb"\011", b"\t"), (rb"\012", b"\n"), (rb"\134", b"\\"))

_mount = function("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount = function("umount2", c_char_p, c_int)
_open_tree = function("syscall", c_long, c_int, c_char_p, c_uint, result=c_long)
_mount_setattr = function(
    "syscall", c_long, c_int, c_char_p, c_uint, c_char_p, c_ulong, result=c_long
)
_move_mount = function("syscall", c_long, c_int, c_char_p, c_int, c_char_p, c_uint, result=c_long)


def mount(
    source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None
) -> None:
    """Mount ``source`` on ``target``, which is followed. Raises OSError as mount(2) says."""
    check(_mount(source, target, kind, flags, data), "mount")


def unmount(target: bytes, flags: int) -> None:
    """Unmount what is mounted on ``target``, which is followed. Raises OSError as umount2(2)."""
    check(_umount(target, flags), "umount2")


def clone_mount(descriptor: int) -> int:
    """Return a descriptor of a new bind mount of a file, which is not attached anywhere yet.

    It goes with the descriptor unless it is attached. Raises OSError as open_tree(2) says.
    """
    flags = _OPEN_TREE_CLONE | AT_EMPTY_PATH | os.O_CLOEXEC
    return check(_open_tree(_OPEN_TREE, descriptor, b"", flags), "open_tree")


def clone_writable(descriptor: int) -> int:
    """Return a descriptor of a copy of the mount that a directory is on, which can be written to.

    It begins at the directory, is attached nowhere, and goes with the descriptor. Raises OSError
    as open_tree(2) and mount_setattr(2) say: EPERM where the mount is locked, ENOSYS before
    Linux 5.12.
    """
    clone = clone_mount(descriptor)
    # struct mount_attr: what is set, what is cleared, propagation, user namespace.
    attributes = b"".join(
        value.to_bytes(8, sys.byteorder) for value in (0, _MOUNT_ATTR_RDONLY, 0, 0)
    )
    try:
        check(
            _mount_setattr(_MOUNT_SETATTR, clone, b"", AT_EMPTY_PATH, attributes, len(attributes)),
            "mount_setattr",
        )
    except BaseException:
        os.close(clone)
        raise
    return clone


def clone_tree(path: bytes) -> int:
    """Return a descriptor (O_PATH) of a copy of all that is mounted at a directory and below.

    It is attached nowhere, so ``..`` leads nowhere from its root, and goes with the descriptor.
    Raises OSError as open_tree(2) says: EPERM without CAP_SYS_ADMIN over the mount namespace.
    """
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
    return check(_open_tree(_OPEN_TREE, AT_FDCWD, path, flags), "open_tree")


def attach_mount(descriptor: int, target: int) -> None:
    """Mount what ``clone_mount`` has returned on the file that ``target`` is a descriptor of.

    Raises OSError as move_mount(2) says: ENOENT where one of the files has no name any more.
    """
    flags = _MOVE_MOUNT_EMPTY_PATHS
    check(_move_mount(_MOVE_MOUNT, descriptor, b"", target, b"", flags), "move_mount")


def mount_proc(target: bytes) -> None:
    """Mount a procfs of this process's pid namespace. Raises OSError as mount(2) says."""
    mount(b"proc", target, b"proc", 0, None)


def mount_points() -> list[bytes]:
    """Return where something is mounted, as this thread sees it, whose working directory is /proc.

    The last mounts are at the end. Raises OSError.
    """
    with open("thread-self/mountinfo", "rb", buffering=0) as file:
        lines = file.readall().splitlines()
    points = []
    for line in lines:
        # proc_pid_mountinfo(5).
        point = line.split(b" ", 5)[4]
        for text, character in _ESCAPED:
            point = point.replace(text, character)
        points.append(point)
    return points


def mounted() -> list[tuple[int, int, bytes]]:
    """Return the number, st_dev and file system type of each mount that this thread can reach.

    The working directory is /proc. Raises OSError.
    """
    with open("thread-self/mountinfo", "rb", buffering=0) as file:
        lines = file.readall().splitlines()
    found = []
    for line in lines:
        # proc_pid_mountinfo(5).
        before, _, after = line.partition(b" - ")
        number, _, device = before.split(b" ", 3)[:3]
        major, _, minor = device.partition(b":")
        found.append((int(number), os.makedev(int(major), int(minor)), after.partition(b" ")[0]))
    return found


def is_read_only(mount_id: int) -> bool:
    """Return whether the file system of a mount is read-only, not just the mount.

    Of the mount namespace of this thread, whose working directory is /proc; False where the
    mount is none of it.
    """
    with open("thread-self/mountinfo", "rb", buffering=0) as file:
        lines = file.readall().splitlines()
    for line in lines:
        # proc_pid_mountinfo(5).
        if line.startswith(b"%d " % mount_id):
            return b"ro" in line.partition(b" - ")[2].split(b" ", 2)[2].split(b",")
    return False


def lasting_numbers() -> dict[int, int]:
    """Return st_dev of file systems that are mounted without a device of their own, to numbers.

    st_dev of these is another one after the next mount, or on the next host (NFS, Lustre);
    the number is made from type and source, and those whose source is but a word (tmpfs)
    have none. Of the mount namespace of this process, whose working directory is /proc.
    """
    numbers = {}
    with open("self/mountinfo", "rb", buffering=0) as file:
        lines = file.readall().splitlines()
    for line in lines:
        # proc_pid_mountinfo(5).
        before, _, after = line.partition(b" - ")
        major, _, minor = before.split()[2].partition(b":")
        kind, source = after.split()[:2]
        if major == b"0" and (b"/" in source or b":" in source):
            number = _LASTING | zlib.crc32(kind + b" " + source)
            numbers[os.makedev(0, int(minor))] = number
    return numbers
