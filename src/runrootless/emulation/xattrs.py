"""Extended attributes: xattr(7).

The attributes that the emulation itself keeps are not shown, so that nothing copies them.
"""

from __future__ import annotations

import errno
import os

from runrootless.emulation.attributes import (
    ABSENT_USER,
    NAME_LIMIT,
    Attributes,
    is_hidden,
    is_kept,
    is_trusted,
)
from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.credentials import CAP_SYS_ADMIN, Credentials
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.linux.files import AT_FDCWD, AT_SYMLINK_NOFOLLOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Locate = Callable[[Call], tuple[bytes, int]]

_NAME_SIZE = NAME_LIMIT + 1
_VALUE_LIMIT = 65536
_FLAGS = os.XATTR_CREATE | os.XATTR_REPLACE


class Xattrs(Handlers):
    """Handlers of the xattr family."""

    def __init__(self, shared: Shared, attributes: Attributes) -> None:
        super().__init__(shared)
        self._attributes = attributes

    def setxattr(self, call: Call) -> int | None:
        """setxattr(2)."""
        return self._set(call, self._follow)

    def lsetxattr(self, call: Call) -> int | None:
        """lsetxattr(2)."""
        return self._set(call, self._nofollow)

    def fsetxattr(self, call: Call) -> int | None:
        """fsetxattr(2)."""
        return self._set(call, self._descriptor)

    def getxattr(self, call: Call) -> int | None:
        """getxattr(2)."""
        return self._get(call, self._follow)

    def lgetxattr(self, call: Call) -> int | None:
        """lgetxattr(2)."""
        return self._get(call, self._nofollow)

    def fgetxattr(self, call: Call) -> int | None:
        """fgetxattr(2)."""
        return self._get(call, self._descriptor)

    def listxattr(self, call: Call) -> int | None:
        """listxattr(2)."""
        return self._list(call, self._follow)

    def llistxattr(self, call: Call) -> int | None:
        """llistxattr(2)."""
        return self._list(call, self._nofollow)

    def flistxattr(self, call: Call) -> int | None:
        """flistxattr(2)."""
        return self._list(call, self._descriptor)

    def removexattr(self, call: Call) -> int | None:
        """removexattr(2)."""
        return self._remove(call, self._follow)

    def lremovexattr(self, call: Call) -> int | None:
        """lremovexattr(2)."""
        return self._remove(call, self._nofollow)

    def fremovexattr(self, call: Call) -> int | None:
        """fremovexattr(2)."""
        return self._remove(call, self._descriptor)

    def _set(self, call: Call, locate: Locate) -> int | None:
        _, address, value, size, flags = call.arguments[:5]
        flags &= 0xFFFFFFFF
        attribute = self._kept_attribute(call, address)
        if attribute is None or size > _VALUE_LIMIT or flags & ~_FLAGS:
            return None
        if not self._credentials(call).can(CAP_SYS_ADMIN):
            return -errno.EPERM
        data = self._memory.read(call.pid, value, size)
        if data is None:
            return -errno.EFAULT
        name, nofollow = locate(call)
        require_valid(call)
        self._attributes.set(name, nofollow, attribute, data, flags)
        return 0

    def _get(self, call: Call, locate: Locate) -> int | None:
        _, address, buffer, size = call.arguments[:4]
        attribute = self._memory.read_string(call.pid, address, _NAME_SIZE)
        if attribute is None:
            return None
        if is_hidden(attribute):
            # Looked for under a name that no file has, for the sake of other errors.
            name, nofollow = locate(call)
            os.getxattr(name, ABSENT_USER, follow_symlinks=not nofollow)
            return -errno.ENODATA
        if not is_kept(attribute):
            return None
        if is_trusted(attribute) and not self._credentials(call).can(CAP_SYS_ADMIN):
            return -errno.ENODATA
        name, nofollow = locate(call)
        return self._return(call, self._attributes.get(name, nofollow, attribute), buffer, size)

    def _list(self, call: Call, locate: Locate) -> int | None:
        _, buffer, size = call.arguments[:3]
        name, nofollow = locate(call)
        try:
            names = self._attributes.names(name, nofollow)
        except OSError:
            return None
        if names is None:
            return None
        if not self._credentials(call).can(CAP_SYS_ADMIN):
            names = [entry for entry in names if not is_trusted(entry)]
        return self._return(call, b"".join(entry + b"\0" for entry in names), buffer, size)

    def _remove(self, call: Call, locate: Locate) -> int | None:
        attribute = self._kept_attribute(call, call.arguments[1])
        if attribute is None:
            return None
        if not self._credentials(call).can(CAP_SYS_ADMIN):
            return -errno.EPERM
        name, nofollow = locate(call)
        require_valid(call)
        self._attributes.remove(name, nofollow, attribute)
        return 0

    def _return(self, call: Call, data: bytes, buffer: int, size: int) -> int:
        if size:
            if len(data) > size:
                return -errno.ERANGE
            require_valid(call)
            if not self._memory.write(call.pid, buffer, data):
                return -errno.EFAULT
        return len(data)

    def _kept_attribute(self, call: Call, address: int) -> bytes | None:
        """Return the name of an attribute that the emulation keeps, None for others."""
        attribute = self._memory.read_string(call.pid, address, _NAME_SIZE)
        return attribute if attribute and is_kept(attribute) else None

    def _credentials(self, call: Call) -> Credentials:
        return self._identity.of(call.pid)

    def _follow(self, call: Call) -> tuple[bytes, int]:
        return self._paths.name(call, AT_FDCWD, call.arguments[0], 0)

    def _nofollow(self, call: Call) -> tuple[bytes, int]:
        return self._paths.name(call, AT_FDCWD, call.arguments[0], AT_SYMLINK_NOFOLLOW)

    def _descriptor(self, call: Call) -> tuple[bytes, int]:
        return self._paths.open_file_name(call, call.descriptor(0)), 0
