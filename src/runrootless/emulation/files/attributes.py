"""The attributes that the emulation keeps: under which name, and where.

Those that only root of the host may set (``trusted.*``, and ``security.*`` but for file
capabilities, which the kernel knows in user namespaces) are carried by regular files and
directories under another name in ``user.``. Other files cannot have user attributes,
and on some file systems no file can: theirs are in the side store.
"""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.call import failure
from runrootless.emulation.owners.ownership import ATTRIBUTE
from runrootless.emulation.stores.attribute_store import AttributeStore
from runrootless.linux.files import Files, handle, touch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NAME_LIMIT = 255
"""XATTR_NAME_MAX, in bytes."""

_PREFIX = b"user.runrootless."
_NATIVE = b"security.capability"
_TRUSTED = b"trusted."
_SECURITY = b"security."
_USER = b"user."
# No file has it, as the next one: for the sake of what is said of those that it could have.
_ABSENT = b"security.runrootless"

ABSENT_USER = _PREFIX
"""The name of a user attribute that no file has."""

_FILE_TYPES_WITH_ATTRIBUTES = (stat.S_IFREG, stat.S_IFDIR)


def is_kept(attribute: bytes) -> bool:
    """Return whether an attribute is one that the emulation keeps, not the kernel."""
    # A longer one is the kernel's to refuse.
    is_short = len(attribute) <= NAME_LIMIT
    return is_short and attribute.startswith((_TRUSTED, _SECURITY)) and attribute != _NATIVE


def is_trusted(attribute: bytes) -> bool:
    """Return whether an attribute is one that only CAP_SYS_ADMIN may see."""
    return attribute.startswith(_TRUSTED)


def is_hidden(attribute: bytes) -> bool:
    """Return whether an attribute is one in which the emulation keeps something."""
    return attribute == ATTRIBUTE or attribute.startswith(_PREFIX)


class Attributes:
    """Finds and keeps attributes of open files, wherever they are kept."""

    def __init__(self, files: Files, store: AttributeStore) -> None:
        self._files = files
        self._store = store

    def set(self, file: int, attribute: bytes, value: bytes, flags: int) -> None:
        """Set an attribute. ``flags`` and the OSError that is raised are setxattr(2)'s."""
        kept = _kept_name(attribute)
        try:
            if kept != ABSENT_USER:
                os.setxattr(handle(file), kept, value, flags)
                return
            # Refused for the same reasons, except that the name is too long with its prefix.
            os.removexattr(handle(file), kept)
            raise failure(errno.ENODATA)
        except OSError as error:
            if kept == ABSENT_USER and error.errno == errno.ENODATA:
                raise failure(errno.ERANGE) from None
            place = self._place_of_refused(file, attribute, error)
        there = self._find(place)
        if flags & os.XATTR_CREATE and attribute in there:
            raise failure(errno.EEXIST)
        if flags & os.XATTR_REPLACE and attribute not in there:
            raise failure(errno.ENODATA)
        self._store.keep(*place, attribute, value)
        touch(file)

    def get(self, file: int, attribute: bytes) -> bytes:
        """Return the value of an attribute. Raises OSError as getxattr(2) does."""
        kept = _kept_name(attribute)
        value = self._files.getxattr(file, kept)
        if value == -errno.ERANGE and kept != ABSENT_USER:
            return os.getxattr(handle(file), kept)
        if isinstance(value, int):
            place = self._place_beside(file)
            beside = self._find(place).get(attribute) if place else None
            if beside is not None:
                return beside
            if place or value != -errno.ENODATA:
                # What the file system says of those that the file could have.
                value = self._files.getxattr(file, _absent_name(attribute))
        if isinstance(value, int):
            raise failure(-value)
        return value

    def names(self, file: int) -> list[bytes] | None:
        """Return the names of all attributes of a file, None where the kernel's list is right.

        Raises OSError as listxattr(2) does.
        """
        listed = os.listxattr(handle(file))
        there = [os.fsencode(entry) for entry in listed]
        # Of the names that are kept here, a label of the host's is no attribute inside.
        shown = [entry for entry in there if not is_hidden(entry) and not is_kept(entry)]
        names = [entry.removeprefix(_PREFIX) for entry in there if entry.startswith(_PREFIX)]
        kept = [entry for entry in names if is_kept(entry)]
        if not any(map(is_hidden, there)):
            place = self._place_beside(file)
            kept += self._find(place) if place else []
        if not kept and len(shown) == len(there):
            return None
        return list(dict.fromkeys(shown + kept))

    def remove(self, file: int, attribute: bytes) -> None:
        """Remove an attribute. Raises OSError as removexattr(2) does."""
        try:
            os.removexattr(handle(file), _kept_name(attribute))
        except OSError as error:
            place = self._place_of_refused(file, attribute, error)
            if attribute not in self._find(place):
                raise failure(errno.ENODATA) from None
            self._store.remove(*place, attribute)
            touch(file)

    def _place_of_refused(
        self, file: int, attribute: bytes, error: OSError
    ) -> tuple[int, int, int]:
        """Return what the store knows a file by for which a user attribute has been refused.

        Raises ``error`` where the file could have it, and OSError where the file system has
        none for others either.
        """
        place = None
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP):
            place = self._place_beside(file)
        if place is None:
            raise error
        answer = self._files.getxattr(file, _absent_name(attribute))
        if isinstance(answer, int) and answer != -errno.ENODATA:
            raise failure(-answer)
        return place

    def _place_beside(self, file: int) -> tuple[int, int, int] | None:
        """Return what the store knows a file by: device, inode, time of birth.

        None for a file that can carry user attributes.
        """
        # Of one that can it is said that this is no name: EINVAL. So one call is enough for most.
        answer = self._files.getxattr(file, _USER)
        if answer != -errno.ENODATA and answer != -errno.EOPNOTSUPP:
            return None
        identity = self._files.identity(file)
        if identity is None:
            return None
        mode, device, inode, birth = identity
        if stat.S_IFMT(mode) in _FILE_TYPES_WITH_ATTRIBUTES and answer == -errno.ENODATA:
            return None
        return device, inode, birth

    def _find(self, place: tuple[int, int, int]) -> Mapping[bytes, bytes]:
        device, inode, birth = place
        found = self._store.find(device, inode)
        return found[1] if found and found[0] == birth else {}


def _kept_name(attribute: bytes) -> bytes:
    if attribute in (_TRUSTED, _SECURITY):
        # The kernel does not know a name without an end, whatever its beginning.
        return _USER
    if len(_PREFIX) + len(attribute) > NAME_LIMIT:
        return ABSENT_USER
    return _PREFIX + attribute


def _absent_name(attribute: bytes) -> bytes:
    """Return a name to ask for, to be told what would be said of ``attribute``."""
    return _SECURITY if attribute in (_TRUSTED, _SECURITY) else _ABSENT
