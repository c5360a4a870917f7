"""Owners and modes as fuse-overlayfs and containers/storage (``force_mask``) keep them.

They are in the attribute ``user.containers.override_stat``, ``UID:GID:MODE[:TYPE]`` with the
mode in octal. To look for it where a file has no record of ours would take one call more for
nearly each stat(2). So a tree whose root has it is given records once, before its first
container starts: from then on these count.
"""

from __future__ import annotations

import os
import stat

from runrootless.emulation.owners.ownership import ATTRIBUTE
from runrootless.emulation.stores.record import NOTHING, Record, encode
from runrootless.errors import named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

THEIRS = "user.containers.override_stat"
"""The attribute."""

MARK = "user.runrootless-override"
"""What the root of a tree has that was given records."""

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES = {"block": stat.S_IFBLK, "char": stat.S_IFCHR}
_PERMISSIONS = 0o7777
_ID_LIMIT = 0xFFFFFFFF


def restore(rootfs: str) -> bool:
    """Give the files of a tree records, and their modes, unless that is done already.

    Return whether the tree is one that has such attributes. Raises OSError.
    """
    if not _has(rootfs, THEIRS):
        return False
    if not _has(rootfs, MARK):
        # What is in a directory comes before it: its mode may keep its owner out.
        for directory, name in _entries(rootfs):
            _restore(directory, name)
        root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _restore(root, ".")
            os.setxattr(f"/proc/self/fd/{root}", MARK, b"1")
        except OSError as error:
            raise named(error, rootfs) from None
        finally:
            os.close(root)
    return True


def parse(text: bytes) -> tuple[Record, int] | None:
    """Return the record and the permissions that the attribute stands for, None if malformed."""
    try:
        uid, gid, mode, *kind = text.decode("ascii").split(":")
        name, *numbers = kind[0].split("-") if kind else ["file"]
        record = Record(int(uid), int(gid))
        if name in _DEVICES:
            major, minor = numbers
            device = os.makedev(int(major), int(minor))
            record = Record(record.uid, record.gid, _DEVICES[name], device)
        permissions = int(mode, 8) & _PERMISSIONS
    except (ValueError, OverflowError):
        return None
    if len(kind) > 1 or not (0 <= record.uid < _ID_LIMIT and 0 <= record.gid < _ID_LIMIT):
        return None
    return record, permissions


def _has(path: str, attribute: str) -> bool:
    try:
        os.getxattr(path, attribute)
    except OSError:
        return False
    return True


def _entries(rootfs: str) -> Iterator[tuple[int, str]]:
    for _, names, files, directory in os.fwalk(rootfs, topdown=False):
        for name in names + files:
            yield directory, name


def _restore(directory: int, name: str) -> None:
    file = os.open(name, _PATH, dir_fd=directory)
    try:
        mode = os.fstat(file).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            # Others cannot have the attribute.
            return
        handle = f"/proc/self/fd/{file}"
        try:
            found = parse(os.getxattr(handle, THEIRS))
        except OSError:
            return
        if found is None:
            return
        record, permissions = found
        if record.device_type and not stat.S_ISREG(mode):
            return
        if record != NOTHING:
            try:
                os.setxattr(handle, ATTRIBUTE, encode(record), os.XATTR_CREATE)
            except FileExistsError:
                pass
        os.chmod(handle, permissions)
    finally:
        os.close(file)
