"""Mounting: mount(2), umount2(2), <linux/mount.h>."""

from __future__ import annotations

import os
import zlib

from runrootless.linux.libc import c_char_p, c_int, c_ulong, c_void_p, check, function

MS_RESTRICTIONS = 0xF
"""MS_RDONLY, MS_NOSUID, MS_NODEV and MS_NOEXEC, which are statvfs(3)'s ST_* as well."""

MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_RECURSIVE = 0x4000
MS_PROPAGATION = 0x1E0000
"""MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE and MS_SHARED."""

_MNT_DETACH = 2
_LASTING = 1 << 63

_mount = function("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_void_p)
_umount2 = function("umount2", c_char_p, c_int)


def bind(source: bytes, target: bytes) -> None:
    """Make a directory appear at another place as well, with all that is mounted in it.

    Raises OSError as mount(2) says.
    """
    check(_mount(source, target, None, MS_BIND | MS_RECURSIVE, None), "mount")


def restrict(target: bytes, flags: int) -> None:
    """Give a mount exactly these flags of ``MS_RESTRICTIONS``. Raises OSError as mount(2) says."""
    check(_mount(None, target, None, MS_REMOUNT | MS_BIND | flags, None), "mount")


def mount_proc(target: bytes) -> None:
    """Mount a procfs of this process's pid namespace. Raises OSError as mount(2) says."""
    check(_mount(b"proc", target, b"proc", 0, None), "mount")


def detach(target: bytes) -> None:
    """Unmount what is at ``target`` with all that is mounted in it: umount2(2), MNT_DETACH.

    Raises OSError as umount2(2) says.
    """
    check(_umount2(target, _MNT_DETACH), "umount2")


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
