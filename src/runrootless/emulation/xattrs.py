"""Extended attributes: xattr(7).

Attributes that only root of the host may set (``trusted.*``, and ``security.*`` but for
file capabilities, which the kernel knows in user namespaces) are kept under another
name in ``user.``. The attributes that the emulation itself keeps are not shown, so
that nothing copies them.
"""

from __future__ import annotations

import errno
import os

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.credentials import CAP_SYS_ADMIN, Credentials
from runrootless.emulation.handlers import Handlers
from runrootless.emulation.ownership import ATTRIBUTE
from runrootless.linux.files import AT_FDCWD, AT_SYMLINK_NOFOLLOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Locate = Callable[[Call], tuple[bytes, int]]

PREFIX = b"user.runrootless."
"""What the name of an attribute that is kept under another name is preceded by."""

_NAME_LIMIT = 256
_VALUE_LIMIT = 65536
_ABSENT = b"security.runrootless"
_NATIVE = b"security.capability"
_TRUSTED = b"trusted."
_SECURITY = b"security."
_NO_NAME = b"user."


class Xattrs(Handlers):
    """Handlers of the xattr family."""

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
        _, attribute, value, size, flags = call.arguments[:5]
        kept = self._kept_name(call, attribute)
        if kept is None or size > _VALUE_LIMIT:
            return None
        if not self._credentials(call).can(CAP_SYS_ADMIN):
            return -errno.EPERM
        data = self._memory.read(call.pid, value, size)
        if data is None:
            return -errno.EFAULT
        name, nofollow = locate(call)
        require_valid(call)
        os.setxattr(name, kept, data, flags & 0xFFFFFFFF, follow_symlinks=not nofollow)
        return 0

    def _get(self, call: Call, locate: Locate) -> int | None:
        _, attribute, buffer, size = call.arguments[:4]
        text = self._memory.read_string(call.pid, attribute, _NAME_LIMIT)
        if text is None:
            return None
        if _is_ours(text):
            # Looked for under a name that no file has, for the sake of other errors.
            name, nofollow = locate(call)
            os.getxattr(name, PREFIX, follow_symlinks=not nofollow)
            return -errno.ENODATA
        kept = _kept_name(text)
        if kept is None:
            return None
        if text.startswith(_TRUSTED) and not self._credentials(call).can(CAP_SYS_ADMIN):
            return -errno.ENODATA
        name, nofollow = locate(call)
        try:
            value = os.getxattr(name, kept, follow_symlinks=not nofollow)
        except OSError:
            if kept == _NO_NAME:
                raise
            # Where there is none, what the file system says of those that it could have.
            value = os.getxattr(name, _ABSENT, follow_symlinks=not nofollow)
        return self._return(call, value, buffer, size)

    def _list(self, call: Call, locate: Locate) -> int | None:
        _, buffer, size = call.arguments[:3]
        name, nofollow = locate(call)
        try:
            there = [
                os.fsencode(entry) for entry in os.listxattr(name, follow_symlinks=not nofollow)
            ]
        except OSError:
            return None
        if not any(map(_is_ours, there)):
            return None
        shown = [entry for entry in there if not _is_ours(entry)]
        kept = [entry.removeprefix(PREFIX) for entry in there if entry.startswith(PREFIX)]
        kept = [entry for entry in kept if _kept_name(entry)]
        may_see_trusted = self._credentials(call).can(CAP_SYS_ADMIN)
        shown += [entry for entry in kept if may_see_trusted or not entry.startswith(_TRUSTED)]
        return self._return(call, b"".join(entry + b"\0" for entry in shown), buffer, size)

    def _remove(self, call: Call, locate: Locate) -> int | None:
        kept = self._kept_name(call, call.arguments[1])
        if kept is None:
            return None
        if not self._credentials(call).can(CAP_SYS_ADMIN):
            return -errno.EPERM
        name, nofollow = locate(call)
        require_valid(call)
        os.removexattr(name, kept, follow_symlinks=not nofollow)
        return 0

    def _return(self, call: Call, data: bytes, buffer: int, size: int) -> int:
        if size:
            if len(data) > size:
                return -errno.ERANGE
            require_valid(call)
            if not self._memory.write(call.pid, buffer, data):
                return -errno.EFAULT
        return len(data)

    def _kept_name(self, call: Call, address: int) -> bytes | None:
        text = self._memory.read_string(call.pid, address, _NAME_LIMIT)
        return None if text is None else _kept_name(text)

    def _credentials(self, call: Call) -> Credentials:
        return self._identity.of(call.pid)

    def _follow(self, call: Call) -> tuple[bytes, int]:
        return self._paths.name(call, AT_FDCWD, call.arguments[0], 0)

    def _nofollow(self, call: Call) -> tuple[bytes, int]:
        return self._paths.name(call, AT_FDCWD, call.arguments[0], AT_SYMLINK_NOFOLLOW)

    def _descriptor(self, call: Call) -> tuple[bytes, int]:
        return self._paths.open_file_name(call, call.descriptor(0)), 0


def _is_ours(attribute: bytes) -> bool:
    return attribute == ATTRIBUTE or attribute.startswith(PREFIX)


def _kept_name(attribute: bytes) -> bytes | None:
    """Return the name that an attribute is kept under; None where the kernel keeps it."""
    if len(attribute) >= _NAME_LIMIT - len(PREFIX) or attribute == _NATIVE:
        return None
    if attribute in (_TRUSTED, _SECURITY):
        # The kernel does not know a name without an end, whatever its beginning.
        return _NO_NAME
    for namespace in (_TRUSTED, _SECURITY):
        if attribute.startswith(namespace):
            return PREFIX + attribute
    return None
