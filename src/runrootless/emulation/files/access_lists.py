"""POSIX access control lists, acl(5), whose users and groups the kernel has no number for.

The kernel refuses a list that names any but those. So it is given the list without its
named entries: what a list means for the mode, for chmod(2) and for the modes of new files
is up to the kernel. The named entries are kept beside it, in an attribute of their own.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from runrootless.emulation.files.attributes import Attributes
from runrootless.linux.files import Files, handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import TypeAlias

    Entry: TypeAlias = tuple[int, int, int]

ACCESS = b"system.posix_acl_access"
"""The attribute that holds who may use a file."""

_DEFAULT = b"system.posix_acl_default"

# <linux/posix_acl_xattr.h>, <linux/posix_acl.h>.
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_NAMED = (_USER, _GROUP)
_TAGS = (_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER)
_NO_ID = 0xFFFFFFFF


def is_access_list(attribute: bytes) -> bool:
    """Return whether an attribute holds an access control list."""
    return attribute in (ACCESS, _DEFAULT)


def is_refused(attribute: bytes, value: bytes | None, is_directory: bool) -> bool:
    """Return whether the kernel refuses a list, None for none, whoever sets it, or ignores it.

    do_set_acl() in fs/posix_acl.c.
    """
    entries = unpack(value) if value else []
    if entries is None:
        return True
    for tag, _, number in entries:
        if tag not in _TAGS or (tag in _NAMED and number == _NO_ID):
            return True
    return attribute == _DEFAULT and not is_directory


class AccessLists:
    """Keeps the lists of open files."""

    def __init__(self, files: Files, attributes: Attributes) -> None:
        self._files = files
        self._attributes = attributes

    def set(self, file: int, attribute: bytes, value: bytes) -> None:
        """Set a list. Raises OSError as setxattr(2) does."""
        entries = unpack(value)
        named = [entry for entry in entries or () if entry[0] in _NAMED]
        if entries is not None and named:
            if _is_valid(entries):
                value = _pack(entry for entry in entries if entry not in named)
            else:
                # For the kernel to say what else is wrong with it.
                value = _pack(_with_known_id(entry) for entry in entries)
        os.setxattr(handle(file), attribute, value)
        if named:
            self._attributes.set(file, attribute, _pack(named), 0)
        else:
            self._forget(file, attribute)

    def get(self, file: int, attribute: bytes) -> bytes | None:
        """Return a file's list, None if it has none."""
        value = self._files.getxattr(file, attribute)
        try:
            if value == -errno.ERANGE:
                value = os.getxattr(handle(file), attribute)
            entries = None if isinstance(value, int) else unpack(value)
            if isinstance(value, int) or not entries:
                return None
            # Without a mask there is no named entry: somebody else has set another list.
            if any(tag == _MASK for tag, _, _ in entries):
                named = unpack(self._attributes.get(file, attribute))
                return _pack(sorted(entries + (named or []), key=lambda entry: entry[0]))
        except OSError:
            # No named entries.
            pass
        return None if isinstance(value, int) else value

    def remove(self, file: int, attribute: bytes) -> None:
        """Remove a list. Raises OSError as removexattr(2) does."""
        os.removexattr(handle(file), attribute)
        self._forget(file, attribute)

    def named_default(self, directory: int) -> bytes | None:
        """Return the named entries that new files in a directory inherit, None for none."""
        value = self._files.getxattr(directory, _DEFAULT)
        if value.__class__ is int and value != -errno.ERANGE:
            return None
        try:
            return self._attributes.get(directory, _DEFAULT)
        except OSError:
            return None

    def inherit(self, directory: int, file: int) -> None:
        """Give a new file what it inherits from its directory: acl(5), "Object creation".

        The kernel has given it the rest. Raises OSError as setxattr(2) does.
        """
        named = self.named_default(directory)
        if named is None or self._files.getxattr(file, ACCESS).__class__ is int:
            # Nothing, or to a symlink.
            return
        self._attributes.set(file, ACCESS, named, 0)
        if stat.S_ISDIR(os.fstat(file).st_mode):
            self._attributes.set(file, _DEFAULT, named, 0)

    def _forget(self, file: int, attribute: bytes) -> None:
        try:
            self._attributes.remove(file, attribute)
        except OSError:
            # There are no named entries.
            pass


def permits(
    value: bytes, fsuid: int, in_group: Callable[[int], bool], group: int, want: int
) -> bool:
    """Return whether a list lets a user who does not own the file do what ``want`` says.

    ``want`` is a sum of 4, 2 and 1, and ``group`` the file's: posix_acl_permission() in
    fs/posix_acl.c.
    """
    entries = unpack(value) or []
    mask = next((permissions for tag, permissions, _ in entries if tag == _MASK), want)
    in_any = False
    for tag, permissions, number in entries:
        if tag == _USER and number == fsuid:
            return permissions & mask & want == want
        if tag == _GROUP_OBJ:
            number = group
        if tag in (_GROUP_OBJ, _GROUP) and in_group(number):
            in_any = True
            if permissions & want == want:
                return permissions & mask & want == want
        if tag == _OTHER:
            return not in_any and permissions & want == want
    return False


def _is_valid(entries: list[Entry]) -> bool:
    """Return whether a list with named entries is one that the kernel takes if it knows the IDs.

    posix_acl_valid() in fs/posix_acl.c.
    """
    tags = [tag for tag, _, _ in entries]
    once = [tag for tag in tags if tag not in _NAMED]
    return (
        tags == sorted(tags)
        and once == [_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER]
        and all(permissions <= 7 for _, permissions, _ in entries)
        and all(number != _NO_ID for tag, _, number in entries if tag in _NAMED)
    )


def _with_known_id(entry: Entry) -> Entry:
    tag, permissions, number = entry
    return tag, permissions, number if number == _NO_ID else 0


def unpack(value: bytes) -> list[Entry] | None:
    """Return the entries of a list (tag, permissions, number), None if it is malformed."""
    if value[: len(_VERSION)] != _VERSION or (len(value) - len(_VERSION)) % _ENTRY.size:
        return None
    return list(_ENTRY.iter_unpack(value[len(_VERSION) :]))


def _pack(entries: Iterable[Entry]) -> bytes:
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in entries)
