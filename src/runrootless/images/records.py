"""What an unprivileged user cannot give to files: kept as the engines read it.

Owners, what device nodes stand for, and attributes are in the files' own extended attributes,
or in the side stores beside the root file system: see docs/semantics.md, "Ownership". This
process is in /proc, as ``runrootless.linux.files`` wants it.
"""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.apart import Apart
from runrootless.emulation.files.access_lists import AccessLists, is_access_list
from runrootless.emulation.files.attributes import Attributes, is_hidden, is_kept
from runrootless.emulation.owners.ownership import ATTRIBUTE, Ownership
from runrootless.emulation.stores.attribute_store import AttributeStore
from runrootless.emulation.stores.owner_store import OwnerStore
from runrootless.emulation.stores.record import NOT_CHANGED, Record, encode
from runrootless.errors import Error
from runrootless.linux.files import Files, handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

STORES = (".rootfs.ownership", ".rootfs.attributes")
"""The side stores of a root file system ``rootfs``, in the directory that it is in."""

# Of the machine that the image was made on: as umoci leaves them out.
_LEFT_OUT = (b"security.selinux", b"system.nfs4_acl")
_OVERLAY = b"trusted.overlay."
_CAPABILITY = b"security.capability"
_PLAIN = b"user."


class Records:
    """Keeps records of files in the directory that is open as ``directory``, below ``rootfs``."""

    def __init__(self, directory: int, rootfs: int) -> None:
        self._directory = directory
        self._files = Files()
        owners, attributes = OwnerStore(), AttributeStore()
        device = os.fstat(rootfs).st_dev
        self._fds = []
        for store, name in ((owners, STORES[0]), (attributes, STORES[1])):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=directory)
            self._fds.append(fd)
            store.use(fd)
            store.open(device)
        self._ownership = Ownership(self._files, owners, Apart())
        self._attributes = Attributes(self._files, attributes)
        self._lists = AccessLists(self._files, self._attributes)
        self._encoded: dict[tuple[int, int], bytes] = {}
        self.lost_capabilities = 0
        """How many files should have capabilities that this process could not give them."""

    def close(self) -> None:
        """Close the side stores; one in which nothing is kept is removed."""
        for fd, name in zip(self._fds, STORES):
            if os.fstat(fd).st_size == 0:
                os.unlink(name, dir_fd=self._directory)
            os.close(fd)

    def own(self, file: int, uid: int, gid: int) -> None:
        """Keep the owner of a new regular file or directory, open as ``file``. Raises OSError."""
        if not (uid or gid):
            return
        value = self._encoded.get((uid, gid))
        if value is None:
            value = encode(_record(uid, gid))
            if len(self._encoded) < 4096:
                self._encoded[uid, gid] = value
        try:
            if value:
                os.setxattr(file, ATTRIBUTE, value)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self._ownership.keep_new(file, _record(uid, gid))

    def own_again(self, file: int, uid: int, gid: int) -> None:
        """Keep the owner of a file that may have one. Raises OSError."""
        self._ownership.keep_new(file, _record(uid, gid))

    def own_special(self, file: int, uid: int, gid: int, kind: int = 0, device: int = 0) -> None:
        """Keep the owner of a new file of any type, and what a device node stands for.

        ``file`` is an O_PATH descriptor; ``kind`` is as in st_mode. Raises OSError.
        """
        record = _record(uid, gid)
        self._ownership.keep_new(file, Record(record.uid, record.gid, kind, device))

    def inherit(self, parent: int, directory: int) -> None:
        """Keep of a new directory the group that it has by mkdir(2). Raises OSError."""
        status = os.fstat(parent)
        if status.st_mode & stat.S_ISGID:
            record = self._ownership.find(parent, status.st_mode, status.st_dev, status.st_ino)
            self.own_special(directory, 0, record.gid if record else 0)

    def lasts(self, directory: int) -> bool:
        """Return whether what device nodes in a directory stand for can be kept beside it."""
        return self._ownership.lasts_beside(os.fstat(directory).st_dev)

    def set_attributes(self, file: int, attributes: Mapping[bytes, bytes]) -> None:
        """Give a new file these attributes. Raises OSError, ENOSPC for one that is too large."""
        for name, value in attributes.items():
            if is_hidden(name) or name in _LEFT_OUT or name.startswith(_OVERLAY):
                continue
            try:
                if is_access_list(name):
                    self._lists.set(file, name, value)
                elif is_kept(name):
                    self._attributes.set(file, name, value, 0)
                elif name == _CAPABILITY:
                    self._set_capability(file, value)
                else:
                    os.setxattr(handle(file), name, value)
            except OSError as error:
                if error.errno == errno.EOPNOTSUPP:
                    # As real root's tools do it, where the file system has none.
                    continue
                raise Error(
                    f"the attribute {name.decode('utf-8', 'backslashreplace')} of "
                    f"{len(value)} bytes cannot be set: {error.strerror}"
                ) from None

    def clear_attributes(self, file: int) -> None:
        """Remove all attributes of a directory but the record of its owner. Raises OSError."""
        for name in os.listxattr(handle(file)):
            if os.fsencode(name) != ATTRIBUTE and not name.startswith("security.selinux"):
                try:
                    os.removexattr(handle(file), name)
                except PermissionError:
                    # What the host itself has given it.
                    continue
        for attribute in self._attributes.names(file) or ():
            if is_kept(attribute):
                self._attributes.remove(file, attribute)

    def _set_capability(self, file: int, value: bytes) -> None:
        try:
            os.setxattr(handle(file), _CAPABILITY, value)
        except PermissionError:
            # Outside of a user namespace that is the caller's own.
            if stat.S_ISREG(os.fstat(file).st_mode):
                self.lost_capabilities += 1


def _record(uid: int, gid: int) -> Record:
    # As chown(2) takes it: what is not changed stays root's.
    return Record(0 if uid == NOT_CHANGED else uid, 0 if gid == NOT_CHANGED else gid)
