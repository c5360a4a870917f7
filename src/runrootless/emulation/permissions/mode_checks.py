"""What calls that change modes and times may do on behalf of an emulated user.

As in ``file_checks``, which has the others. What the kernel would not do as it does for a real
user ``files.modes`` does: of calls that are intercepted with this engine alone by a method of
here, which returns 0 then, and None where the call is the kernel's.
"""

from __future__ import annotations

import errno

from runrootless.emulation.call import Call, Change, failure
from runrootless.emulation.callers.credentials import Credentials
from runrootless.emulation.files.access_lists import AccessLists
from runrootless.emulation.files.modes import (
    PARTS,
    PARTS_32,
    SECONDS,
    SECONDS_32,
    Modes,
    read_old_times,
    read_times,
)
from runrootless.emulation.handlers import Shared
from runrootless.emulation.paths.walk import Found
from runrootless.emulation.permissions.access import WRITE
from runrootless.emulation.permissions.attribute_checks import AttributeChecks
from runrootless.emulation.permissions.file_checks import INT
from runrootless.emulation.processes.process_files import ProcessFiles
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    import struct

_PLACE_FLAGS = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH


class ModeChecks(AttributeChecks):
    """Checks of these calls."""

    def __init__(
        self,
        shared: Shared,
        process_files: ProcessFiles,
        access_lists: AccessLists,
        modes: Modes,
    ) -> None:
        super().__init__(shared, process_files, access_lists)
        self._modes = modes

    def chmod(self, call: Call) -> None:
        """chmod(2)."""
        self._with(call, AT_FDCWD, call.arguments[0], 0, self._require_owner)

    def fchmod(self, call: Call) -> None:
        """fchmod(2)."""
        file = self._paths.open_file(call, call.descriptor(0))
        self._with_file(call, file, self._require_owner)

    def fchmodat(self, call: Call) -> None:
        """The system call of fchmodat(2), which takes no flags."""
        self._with(call, call.descriptor(0), call.arguments[1], 0, self._require_owner)

    def fchmodat2(self, call: Call) -> None:
        """fchmodat2(2)."""
        _, path, _, flags = call.arguments[:4]
        if not flags & INT & ~_PLACE_FLAGS:
            self._with(call, call.descriptor(0), path, flags, self._require_owner)

    def utime(self, call: Call) -> int | None:
        """utime(2)."""
        return self._set_old_times(call, AT_FDCWD, 0, SECONDS)

    def utimes(self, call: Call) -> int | None:
        """utimes(2)."""
        return self._set_old_times(call, AT_FDCWD, 0, PARTS)

    def futimesat(self, call: Call) -> int | None:
        """futimesat(2)."""
        return self._set_old_times(call, call.descriptor(0), 1, PARTS)

    def utime_32(self, call: Call) -> int | None:
        """utime(2) of 32-bit programs."""
        return self._set_old_times(call, AT_FDCWD, 0, SECONDS_32)

    def utimes_32(self, call: Call) -> int | None:
        """utimes(2) of 32-bit programs."""
        return self._set_old_times(call, AT_FDCWD, 0, PARTS_32)

    def futimesat_32(self, call: Call) -> int | None:
        """futimesat(2) of 32-bit programs."""
        return self._set_old_times(call, call.descriptor(0), 1, PARTS_32)

    def utimensat(self, call: Call) -> None:
        """utimensat(2)."""
        self._check_times(call, PARTS)

    def utimensat_32(self, call: Call) -> None:
        """utimensat(2) of 32-bit programs, whose seconds have 32 bits."""
        self._check_times(call, PARTS_32)

    def _set_old_times(
        self, call: Call, directory: int, index: int, structure: struct.Struct
    ) -> int | None:
        path, address = call.arguments[index : index + 2]
        found = read_old_times(self._memory, call, address, structure)
        if found is None:
            return None
        self._check_touch(call, directory, path, found[0] is None, 0)
        return self._modes.set_times_at(call, directory, path, found[0], 0)

    def _check_times(self, call: Call, structure: struct.Struct) -> None:
        _, path, _, flags = call.arguments[:4]
        found = read_times(self._memory, call, structure)
        if found is not None:
            self._check_touch(call, call.descriptor(0), path, found[0] is None, flags)

    def _check_touch(self, call: Call, directory: int, path: int, is_now: bool, flags: int) -> None:
        """Require that times may be set, to now or to others. Raises OSError: EACCES, EPERM."""

        def touch(call: Call, who: Credentials, found: Found) -> None:
            if found.file < 0 or self._access.is_owner(call, who, found.file):
                return
            with Change(found.file):
                if not is_now:
                    raise failure(errno.EPERM)
                self._access.require(call, who, found.file, WRITE)

        if flags & INT & ~_PLACE_FLAGS:
            return
        if path:
            self._with(call, directory, path, flags, touch)
        elif directory >= 0 and not flags:
            self._with_file(call, self._paths.open_file(call, directory), touch)

    def _require_owner(self, call: Call, who: Credentials, found: Found) -> None:
        if found.file >= 0 and not self._access.is_owner(call, who, found.file):
            with Change(found.file):
                raise failure(errno.EPERM)
