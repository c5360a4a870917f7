"""Extended attributes: xattr(7).

The attributes that the emulation itself keeps are not shown, so that nothing copies them.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from runrootless.emulation.call import Call, Change, failure, require_valid, write
from runrootless.emulation.callers.credentials import CAP_SYS_ADMIN
from runrootless.emulation.files.access_lists import ACCESS, AccessLists, is_access_list
from runrootless.emulation.files.attributes import (
    ABSENT_USER,
    NAME_LIMIT,
    Attributes,
    is_hidden,
    is_kept,
    is_trusted,
)
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from typing_extensions import TypeAlias

    Place: TypeAlias = "tuple[int, int | None, int]"
    Locate = Callable[[Call], Place]

    class Checks(Protocol):
        """What decides on permissions to attributes: ``permissions.attribute_checks``."""

        def require_search(self, call: Call, place: Place) -> None:
            """Require that the caller may look at the attributes' names."""

        def require_attribute(
            self, call: Call, place: Place, attribute: bytes, want: int, value: bytes | None = None
        ) -> None:
            """Require that the caller may read or write (``want``) an attribute."""


_NAME_SIZE = NAME_LIMIT + 1
_VALUE_LIMIT = 65536
_FLAGS = os.XATTR_CREATE | os.XATTR_REPLACE
_UNKNOWN_PLACE_FLAGS = 0xFFFFFFFF & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)

# struct xattr_args of <linux/xattr.h>, of which the kernel takes a page at most.
_ARGUMENTS = struct.Struct("=QII")
_ARGUMENTS_LIMIT = 4096


class Xattrs(Handlers):
    """Handlers of the xattr family.

    A place is a descriptor or AT_FDCWD, the address of a path from there, and flags as to
    ``Paths.open``; without a path it is what the descriptor is open for. ``checks`` are of
    emulated users' permissions, None where nobody's are checked.
    """

    def __init__(
        self,
        shared: Shared,
        attributes: Attributes,
        access_lists: AccessLists,
        checks: Checks | None,
    ) -> None:
        super().__init__(shared)
        self._attributes = attributes
        self._access_lists = access_lists
        self._checks = checks

    def setxattr(self, call: Call) -> int | None:
        """setxattr(2)."""
        return self._set(call, self._follow, *call.arguments[1:5])

    def lsetxattr(self, call: Call) -> int | None:
        """lsetxattr(2)."""
        return self._set(call, self._nofollow, *call.arguments[1:5])

    def fsetxattr(self, call: Call) -> int | None:
        """fsetxattr(2)."""
        return self._set(call, self._descriptor, *call.arguments[1:5])

    def setxattrat(self, call: Call) -> int | None:
        """setxattrat(2)."""
        found = self._values_at(call)
        return found and self._set(call, self._at, call.arguments[3], *found)

    def getxattr(self, call: Call) -> int | None:
        """getxattr(2)."""
        return self._get(call, self._follow, *call.arguments[1:4])

    def lgetxattr(self, call: Call) -> int | None:
        """lgetxattr(2)."""
        return self._get(call, self._nofollow, *call.arguments[1:4])

    def fgetxattr(self, call: Call) -> int | None:
        """fgetxattr(2)."""
        return self._get(call, self._descriptor, *call.arguments[1:4])

    def getxattrat(self, call: Call) -> int | None:
        """getxattrat(2)."""
        found = self._values_at(call)
        if found is None or found[2]:
            return None
        return self._get(call, self._at, call.arguments[3], *found[:2])

    def listxattr(self, call: Call) -> int | None:
        """listxattr(2)."""
        return self._list(call, self._follow, *call.arguments[1:3])

    def llistxattr(self, call: Call) -> int | None:
        """llistxattr(2)."""
        return self._list(call, self._nofollow, *call.arguments[1:3])

    def flistxattr(self, call: Call) -> int | None:
        """flistxattr(2)."""
        return self._list(call, self._descriptor, *call.arguments[1:3])

    def listxattrat(self, call: Call) -> int | None:
        """listxattrat(2)."""
        if self._is_refused(call):
            return None
        return self._list(call, self._at, *call.arguments[3:5])

    def removexattr(self, call: Call) -> int | None:
        """removexattr(2)."""
        return self._remove(call, self._follow, call.arguments[1])

    def lremovexattr(self, call: Call) -> int | None:
        """lremovexattr(2)."""
        return self._remove(call, self._nofollow, call.arguments[1])

    def fremovexattr(self, call: Call) -> int | None:
        """fremovexattr(2)."""
        return self._remove(call, self._descriptor, call.arguments[1])

    def removexattrat(self, call: Call) -> int | None:
        """removexattrat(2)."""
        if self._is_refused(call):
            return None
        return self._remove(call, self._at, call.arguments[3])

    def _set(
        self, call: Call, locate: Locate, address: int, value: int, size: int, flags: int
    ) -> int | None:
        flags &= 0xFFFFFFFF
        attribute = self._attribute(call, address)
        if not attribute or size > _VALUE_LIMIT or flags & ~_FLAGS:
            return None
        if self._checks is None and not _is_changed_here(attribute):
            return None
        data = self._memory.read(call.pid, value, size)
        if data is None:
            return -errno.EFAULT
        place = locate(call)
        if self._checks is not None:
            self._checks.require_attribute(call, place, attribute, os.W_OK, data)
        if not _is_changed_here(attribute):
            return None
        file = self._open_to_change(call, place, attribute)
        try:
            if is_access_list(attribute):
                self._access_lists.set(file, attribute, data)
                self._drop_set_group_id(call, file, attribute)
            else:
                self._attributes.set(file, attribute, data, flags)
            if flags & os.XATTR_CREATE and not call.answer(0):
                self._take_back(file, attribute, data)
        finally:
            os.close(file)
        return Call.ANSWERED if flags & os.XATTR_CREATE else 0

    def _get(self, call: Call, locate: Locate, address: int, buffer: int, size: int) -> int | None:
        attribute = self._attribute(call, address)
        if not attribute:
            return None
        place = locate(call)
        if self._checks is not None:
            self._checks.require_attribute(call, place, attribute, os.R_OK)
        if not (is_hidden(attribute) or _is_changed_here(attribute)):
            return None
        file = self._open(call, place)
        try:
            if is_hidden(attribute):
                # Looked for under a name that no file has, for the sake of other errors.
                os.getxattr(handle(file), ABSENT_USER)
                return -errno.ENODATA
            if is_access_list(attribute):
                found = self._access_lists.get(file, attribute)
                return None if found is None else self._return(call, found, buffer, size)
            if is_trusted(attribute) and not self._is_administrator(call):
                return -errno.ENODATA
            return self._return(call, self._attributes.get(file, attribute), buffer, size)
        finally:
            os.close(file)

    def _list(self, call: Call, locate: Locate, buffer: int, size: int) -> int | None:
        place = locate(call)
        if self._checks is not None:
            self._checks.require_search(call, place)
        file = self._open(call, place)
        try:
            names = self._attributes.names(file)
        except OSError:
            return None
        finally:
            os.close(file)
        if names is None:
            return None
        if not self._is_administrator(call):
            names = [entry for entry in names if not is_trusted(entry)]
        return self._return(call, b"".join(entry + b"\0" for entry in names), buffer, size)

    def _remove(self, call: Call, locate: Locate, address: int) -> int | None:
        attribute = self._attribute(call, address)
        if not attribute:
            return None
        place = locate(call)
        if self._checks is not None:
            self._checks.require_attribute(call, place, attribute, os.W_OK)
        if not _is_changed_here(attribute):
            return None
        file = self._open_to_change(call, place, attribute)
        try:
            data = self._value(file, attribute)
            if is_access_list(attribute):
                self._access_lists.remove(file, attribute)
            else:
                self._attributes.remove(file, attribute)
            if not call.answer(0) and data is not None:
                self._put_back(file, attribute, data)
        finally:
            os.close(file)
        return Call.ANSWERED

    def _value(self, file: int, attribute: bytes) -> bytes | None:
        """Return what an attribute that is changed here has, None where it is not there."""
        try:
            if is_access_list(attribute):
                return self._access_lists.get(file, attribute)
            return self._attributes.get(file, attribute)
        except OSError:
            return None

    def _take_back(self, file: int, attribute: bytes, data: bytes) -> None:
        """Undo a call that made an attribute, unless the attribute has changed since."""
        try:
            if is_access_list(attribute) or self._value(file, attribute) != data:
                return
            self._attributes.remove(file, attribute)
        except OSError:
            # Somebody else has.
            pass

    def _put_back(self, file: int, attribute: bytes, data: bytes) -> None:
        """Undo a call that removed an attribute, unless there is one again."""
        try:
            if not is_access_list(attribute):
                self._attributes.set(file, attribute, data, os.XATTR_CREATE)
            elif self._value(file, attribute) is None:
                self._access_lists.set(file, attribute, data)
        except OSError:
            # Somebody else has, or there is no room any more.
            pass

    def _drop_set_group_id(self, call: Call, file: int, attribute: bytes) -> None:
        """Clear a bit that goes when somebody sets a list who is not in the file's group.

        posix_acl_update_mode() in fs/posix_acl.c.
        """
        status = os.fstat(file)
        if attribute != ACCESS or not status.st_mode & stat.S_ISGID:
            return
        record = self._ownership.find(file, status.st_mode, status.st_dev, status.st_ino)
        who = self._identity.of(call.pid)
        if not self._identity.may_set_group_id(call.pid, who, record.gid if record else 0):
            os.chmod(handle(file), stat.S_IMODE(status.st_mode) & ~stat.S_ISGID)

    def _open_to_change(self, call: Call, place: Place, attribute: bytes) -> int:
        """Return a descriptor of a file of which an attribute is to be changed.

        Raises OSError, EPERM among others.
        """
        file = self._open(call, place)
        try:
            if is_kept(attribute) and not self._is_administrator(call):
                with Change(file):
                    raise failure(errno.EPERM)
            require_valid(call)
        except BaseException:
            os.close(file)
            raise
        return file

    def _return(self, call: Call, data: bytes, buffer: int, size: int) -> int:
        if size:
            if len(data) > size:
                return -errno.ERANGE
            if not write(self._memory, call, (buffer, data)):
                return -errno.EFAULT
        return len(data)

    def _attribute(self, call: Call, address: int) -> bytes | None:
        """Return an attribute's name, None or nothing where the kernel refuses it."""
        attribute = self._memory.read_string(call.pid, address, _NAME_SIZE)
        return attribute if attribute and len(attribute) <= NAME_LIMIT else None

    def _is_administrator(self, call: Call) -> bool:
        return self._identity.of(call.pid).can(CAP_SYS_ADMIN)

    def _follow(self, call: Call) -> Place:
        return AT_FDCWD, call.arguments[0], 0

    def _nofollow(self, call: Call) -> Place:
        return AT_FDCWD, call.arguments[0], AT_SYMLINK_NOFOLLOW

    def _descriptor(self, call: Call) -> Place:
        # AT_FDCWD is none of these calls' descriptors.
        return max(call.descriptor(0), -1), None, 0

    def _at(self, call: Call) -> Place:
        directory, path, flags = call.descriptor(0), call.arguments[1], call.arguments[2]
        if not self._is_empty(call):
            return directory, path, flags & AT_SYMLINK_NOFOLLOW
        return directory, None, 0

    def _open(self, call: Call, place: Place) -> int:
        """Return a descriptor of the file at a place. Raises OSError as the kernel does."""
        directory, path, flags = place
        if path is not None:
            return self._paths.open(call, directory, path, flags)
        if directory == AT_FDCWD:
            return self._paths.open_descriptor(call.pid, directory)
        return self._paths.open_file(call, directory)

    def _is_empty(self, call: Call) -> bool:
        """Return whether a call is about its descriptor itself."""
        path, flags = call.arguments[1:3]
        return bool(flags & AT_EMPTY_PATH) and (
            not path or self._memory.read_string(call.pid, path) == b""
        )

    def _is_refused(self, call: Call) -> bool:
        """Return whether listxattrat(2) or removexattrat(2) is one that the kernel refuses."""
        if call.arguments[2] & _UNKNOWN_PLACE_FLAGS:
            return True
        # Unlike setxattrat(2) and getxattrat(2).
        return call.descriptor(0) == AT_FDCWD and self._is_empty(call)

    def _values_at(self, call: Call) -> tuple[int, int, int] | None:
        """Return the members of a call's struct xattr_args; None if the kernel will refuse it."""
        flags, address, size = call.arguments[2], call.arguments[4], call.arguments[5]
        if flags & _UNKNOWN_PLACE_FLAGS or not _ARGUMENTS.size <= size <= _ARGUMENTS_LIMIT:
            return None
        data = self._memory.read(call.pid, address, size)
        if data is None or any(data[_ARGUMENTS.size :]):
            return None
        value, value_size, value_flags = _ARGUMENTS.unpack_from(data)
        return value, value_size, value_flags


def _is_changed_here(attribute: bytes) -> bool:
    """Return whether an attribute is not for the kernel alone to change."""
    return is_kept(attribute) or is_access_list(attribute)
