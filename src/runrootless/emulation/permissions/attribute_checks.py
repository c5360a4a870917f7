"""What an emulated user may do to extended attributes: xattr(7).

As in ``file_checks``, which has the others, except that ``xattrs`` asks for these.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from runrootless.emulation.call import Call, Change, failure
from runrootless.emulation.callers.credentials import CAP_SETFCAP, Credentials
from runrootless.emulation.files.access_lists import is_access_list, is_refused
from runrootless.emulation.paths.walk import Found
from runrootless.emulation.permissions.access import WRITE
from runrootless.emulation.permissions.file_checks import FileChecks
from runrootless.linux.files import AT_FDCWD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.files.xattrs import Place

_CAPABILITIES = b"security.capability"
# Of these the kernel asks no permissions of the file; the emulation has trusted ones in its hand.
_OTHERS = (b"security.", b"system.", b"trusted.")
# struct vfs_ns_cap_data of <linux/capability.h>: the version says the size.
_VERSION = struct.Struct("<I")
_VERSION_MASK = 0xFF000000
_SIZES = {0x02000000: 20, 0x03000000: 24}


class AttributeChecks(FileChecks):
    """Checks of the xattr family."""

    def require_search(self, call: Call, place: Place) -> None:
        """Require that the caller may look at the attributes' names. Raises OSError: EACCES."""
        directory, path, flags = place
        if path is not None:
            self._look(call, directory, path, flags)

    def require_attribute(
        self, call: Call, place: Place, attribute: bytes, want: int, value: bytes | None = None
    ) -> None:
        """Require that the caller may read or write (``want``) an attribute.

        ``value`` is what it is to be set to, None where it is to be removed. Raises OSError:
        EACCES, EPERM.
        """

        def check(call: Call, who: Credentials, found: Found) -> None:
            if found.file < 0:
                return
            if not want & WRITE:
                self._require_of_file(call, who, found.file, attribute, want, value)
                return
            with Change(found.file):
                self._require_of_file(call, who, found.file, attribute, want, value)

        directory, path, flags = place
        if path is not None:
            self._with(call, directory, path, flags, check)
        elif directory == AT_FDCWD:
            self._with_file(call, self._paths.open_descriptor(call.pid, directory), check)
        elif directory >= 0:
            # EBADF of a place (O_PATH) is said before what the file may be asked.
            self._with_file(call, self._paths.open_file(call, directory), check)

    def _require_of_file(
        self,
        call: Call,
        who: Credentials,
        file: int,
        attribute: bytes,
        want: int,
        value: bytes | None,
    ) -> None:
        """Require what xattr_permission() in fs/xattr.c does, and what is asked after it."""
        mode = os.fstat(file).st_mode
        writes = want & WRITE
        if attribute == _CAPABILITIES and writes and (value is None or _is_capability(value)):
            if not self._identity.may(call.pid, who, CAP_SETFCAP):
                raise failure(errno.EPERM)
        elif is_access_list(attribute):
            if (
                writes
                and not is_refused(attribute, value, stat.S_ISDIR(mode))
                and self._files.getxattr(file, attribute) != -errno.EOPNOTSUPP
                and not self._access.is_owner(call, who, file)
            ):
                raise failure(errno.EPERM)
        elif attribute.startswith(b"user."):
            is_directory = stat.S_ISDIR(mode)
            if not is_directory and not stat.S_ISREG(mode):
                # For everybody: EPERM, ENODATA.
                return
            is_sticky = is_directory and mode & stat.S_ISVTX
            if writes and is_sticky and not self._access.is_owner(call, who, file):
                raise failure(errno.EPERM)
            self._access.require(call, who, file, want)
        elif not attribute.startswith(_OTHERS):
            self._access.require(call, who, file, want)


def _is_capability(value: bytes) -> bool:
    """Return whether file capabilities are ones that the kernel takes: others are EINVAL."""
    if len(value) < _VERSION.size:
        return False
    (version,) = _VERSION.unpack_from(value)
    return _SIZES.get(version & _VERSION_MASK) == len(value)
