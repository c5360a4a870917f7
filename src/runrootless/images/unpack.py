"""From layers to a root file system: what each entry of a tar means for it.

The OCI image specification, "Image Layer Filesystem Changeset". What the process may not do is
recorded (``records``). Directories stay accessible until all is there, and their times and
modes are set then.
"""

from __future__ import annotations

import errno
import os
import stat

from runrootless.errors import Error
from runrootless.images import tar_stream, tree
from runrootless.images.places import Place, Places, clean
from runrootless.linux.files import handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from runrootless.images.records import Records
    from runrootless.images.tar_stream import Entry, Tar

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_TYPES = {tar_stream.CHARACTER: stat.S_IFCHR, tar_stream.BLOCK: stat.S_IFBLK}
_ACCESSIBLE = 0o700
_DEFAULT_LIST = b"system.posix_acl_default"
# What 64 bits of nanoseconds hold, and some: the kernel clamps to what the file system has.
_TIME_LIMIT = 1 << 62


class Unpacker:
    """Unpacks layers into the directory that is open as ``root``, one after the other.

    No other process changes what is in there. ``records`` keeps what this one may not do.
    """

    def __init__(self, root: int, records: Records) -> None:
        self._root = root
        self._records = records
        self._places = Places(root, self._made_on_the_way)
        self._layer = -1
        # What this layer has brought, where there is something below it, by _key.
        self._brought: set[int] = set()
        self._times: dict[int, tuple[int, int] | int] = {}
        self._modes: dict[int, int] = {}
        self._defaults: dict[int, bytes] = {}
        self.entries = 0
        """How many entries have been unpacked."""

    def unpack(self, tar: Tar) -> Iterator[int]:
        """Unpack a layer on top of what is there; yield how many entries there were so far.

        Raises Error for an entry that cannot be had, and OSError.
        """
        self._layer += 1
        self._brought.clear()
        for entry in tar.entries():
            try:
                self._apply(entry, tar)
            except Error as error:
                raise Error(f"{_shown(entry.name)}: {error}") from None
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise Error(
                        f"{_shown(entry.name)}: {error.strerror}: make room where the bundle is "
                        "to be, or choose another directory"
                    ) from None
                raise Error(f"{_shown(entry.name)}: {error.strerror}") from None
            self.entries += 1
            yield self.entries

    def finish(self) -> None:
        """Give directories their modes and times. Raises OSError."""
        self._places.close()
        tree.leave_directories(self._root, self._leave)

    def _leave(self, directory: int, inode: int) -> None:
        value = self._defaults.get(inode)
        if value is not None:
            self._records.set_attributes(directory, {_DEFAULT_LIST: value})
        mode = self._modes.get(inode)
        if mode is not None:
            os.fchmod(directory, mode)
        times = self._times.get(inode)
        if times is not None:
            os.utime(directory, ns=times if isinstance(times, tuple) else (times, times))

    def _apply(self, entry: Entry, tar: Tar) -> None:
        path = clean(entry.name)
        above, _, name = path.rpartition(b"/")
        if name.startswith(_WHITEOUT):
            self._white_out(above, name)
            return
        if not name:
            if entry.kind != tar_stream.DIRECTORY:
                raise Error("the root directory cannot be anything else")
            self._take_directory(b".", self._places.root, entry)
            return
        place = self._places.find(above, True)
        assert place is not None
        if self._layer:
            self._mark(place, name)
        kind = entry.kind
        if kind == tar_stream.REGULAR:
            self._make_regular(place, name, entry, tar)
        elif kind == tar_stream.DIRECTORY:
            self._make_directory(place, name, entry)
        elif kind == tar_stream.LINK:
            self._make_link(place, name, entry)
        else:
            self._make_special(place, name, entry)

    def _make_regular(self, place: Place, name: bytes, entry: Entry, tar: Tar) -> None:
        try:
            file = os.open(name, _NEW, 0o600, dir_fd=place.fd)
        except FileExistsError:
            place = self._remove(place, name)
            file = os.open(name, _NEW, 0o600, dir_fd=place.fd)
        try:
            if entry.parts is not None:
                _write_parts(file, entry, tar)
            else:
                for data in tar.content():
                    _write(file, data)
            self._records.own(file, entry.uid, entry.gid)
            os.fchmod(file, entry.mode)
            if entry.xattrs:
                self._records.set_attributes(file, entry.xattrs)
            os.utime(file, ns=_times(entry))
        finally:
            os.close(file)

    def _make_directory(self, place: Place, name: bytes, entry: Entry) -> None:
        try:
            os.mkdir(name, _ACCESSIBLE, dir_fd=place.fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=place.fd).st_mode):
                place = self._remove(place, name)
                os.mkdir(name, _ACCESSIBLE, dir_fd=place.fd)
            else:
                self._take_directory(name, place, entry)
                return
        self._take_directory(name, place, entry, is_new=True)

    def _take_directory(
        self, name: bytes, place: Place, entry: Entry, is_new: bool = False
    ) -> None:
        """Give a directory what an entry says of it."""
        directory = os.open(name, _DIRECTORY, dir_fd=place.fd)
        try:
            status = os.fstat(directory)
            inode = status.st_ino
            if is_new:
                self._records.own(directory, entry.uid, entry.gid)
            else:
                self._records.own_again(directory, entry.uid, entry.gid)
                self._records.clear_attributes(directory)
            self._defaults.pop(inode, None)
            self._modes.pop(inode, None)
            mode = entry.mode
            os.fchmod(directory, mode)
            if entry.xattrs:
                # Else what is made in it would inherit from it.
                default = entry.xattrs.pop(_DEFAULT_LIST, None)
                if default is not None:
                    self._defaults[inode] = default
                self._records.set_attributes(directory, entry.xattrs)
                mode = stat.S_IMODE(os.fstat(directory).st_mode)
            if mode & _ACCESSIBLE != _ACCESSIBLE:
                self._modes[inode] = mode
                os.fchmod(directory, mode | _ACCESSIBLE)
            atime, mtime = _times(entry)
            self._times[inode] = mtime if atime == mtime else (atime, mtime)
        finally:
            os.close(directory)

    def _make_link(self, place: Place, name: bytes, entry: Entry) -> None:
        path = place.path
        above, _, target = clean(entry.link).rpartition(b"/")
        source = self._places.find(above, False) if target else None
        if source is None:
            raise Error(f"{_shown(entry.link)}, which it is to be a link to, is not there")
        # Looking for the other one may close it.
        directory = os.dup(source.fd)
        try:
            there = os.lstat(target, dir_fd=directory)
            found = self._places.find(path, True)
            assert found is not None
            try:
                if os.path.samestat(there, os.lstat(name, dir_fd=found.fd)):
                    return
                found = self._remove(found, name)
            except FileNotFoundError:
                pass
            os.link(target, name, src_dir_fd=directory, dst_dir_fd=found.fd, follow_symlinks=False)
        except FileNotFoundError:
            raise Error(
                f"{_shown(entry.link)}, which it is to be a link to, is not there"
            ) from None
        finally:
            os.close(directory)

    def _make_special(self, place: Place, name: bytes, entry: Entry) -> None:
        try:
            kind, device = self._make_node(place, name, entry)
        except FileExistsError:
            place = self._remove(place, name)
            kind, device = self._make_node(place, name, entry)
        file = os.open(name, _FILE, dir_fd=place.fd)
        try:
            if entry.uid or entry.gid or kind:
                self._records.own_special(file, entry.uid, entry.gid, kind, device)
            if entry.kind != tar_stream.SYMLINK:
                os.chmod(handle(file), entry.mode)
            if entry.xattrs:
                self._records.set_attributes(file, entry.xattrs)
        finally:
            os.close(file)
        os.utime(name, ns=_times(entry), dir_fd=place.fd, follow_symlinks=False)

    def _make_node(self, place: Place, name: bytes, entry: Entry) -> tuple[int, int]:
        """Make what is no regular file; return what a device stands for: type and number."""
        if entry.kind == tar_stream.SYMLINK:
            os.symlink(entry.link, name, dir_fd=place.fd)
            return 0, 0
        if entry.kind == tar_stream.FIFO:
            os.mknod(name, stat.S_IFIFO | 0o600, dir_fd=place.fd)
            return 0, 0
        kind = _TYPES[entry.kind]
        try:
            device = os.makedev(entry.major, entry.minor)
        except OverflowError:
            raise Error(f"there is no device {entry.major}:{entry.minor}") from None
        if kind == stat.S_IFCHR and not device:
            # A whiteout, which is anybody's to make.
            os.mknod(name, stat.S_IFCHR | 0o600, 0, dir_fd=place.fd)
            return 0, 0
        if self._records.lasts(place.fd):
            try:
                os.mknod(name, stat.S_IFCHR | 0o600, 0, dir_fd=place.fd)
                return kind, device
            except FileExistsError:
                raise
            except OSError:
                # A file system without them.
                pass
        os.close(os.open(name, _NEW, 0o600, dir_fd=place.fd))
        return kind, device

    def _white_out(self, above: bytes, name: bytes) -> None:
        """Remove what lower layers have brought, of a file or of all in a directory."""
        victim = name[len(_WHITEOUT) :]
        if name != _OPAQUE and victim in (b"", b".", b".."):
            raise Error("it is a whiteout of no file")
        place = self._places.find(above, False) if self._layer else None
        if place is None:
            return
        pending: list[tuple[bytes, list[bytes]]]
        pending = [(place.path, _names(place) if name == _OPAQUE else [victim])]
        while pending:
            path, names = pending.pop()
            for one in names:
                place = self._places.find(path, False)
                if place is None:
                    break
                if hash((place.inode, one)) not in self._brought:
                    self._remove(place, one)
                    continue
                try:
                    is_directory = stat.S_ISDIR(os.lstat(one, dir_fd=place.fd).st_mode)
                except FileNotFoundError:
                    continue
                below = self._places.find(path + b"/" + one, False) if is_directory else None
                if below is not None:
                    pending.append((below.path, _names(below)))

    def _mark(self, place: Place, name: bytes) -> None:
        """Take note of what this layer brings, and of the directories that it is in."""
        self._brought.add(hash((place.inode, name)))
        while place.parent is not None and place.layer != self._layer:
            place.layer = self._layer
            self._brought.add(hash((place.parent.inode, place.name)))
            place = place.parent

    def _remove(self, place: Place, name: bytes) -> Place:
        """Remove what is there, if anything is; return the directory, which is open."""
        try:
            mode = os.lstat(name, dir_fd=place.fd).st_mode
        except FileNotFoundError:
            return place
        tree.remove(name, place.fd)
        if not (stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            return place
        self._places.forget()
        found = self._places.find(place.path, True)
        assert found is not None
        return found

    def _made_on_the_way(self, parent: int, directory: int) -> None:
        self._forget(os.fstat(directory).st_ino)
        self._records.inherit(parent, directory)

    def _forget(self, inode: int) -> None:
        """Forget what was known of a directory whose inode number another one has."""
        self._times.pop(inode, None)
        self._modes.pop(inode, None)
        self._defaults.pop(inode, None)


def _names(place: Place) -> list[bytes]:
    directory = os.open(b".", _DIRECTORY, dir_fd=place.fd)
    try:
        return [os.fsencode(name) for name in os.listdir(directory)]
    finally:
        os.close(directory)


def _write(file: int, data: bytes) -> None:
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, memoryview(data)[written:])


def _write_parts(file: int, entry: Entry, tar: Tar) -> None:
    """Write the parts of a sparse file; what is between them stays a hole."""
    assert entry.parts is not None
    parts = iter(entry.parts)
    offset = length = 0
    for data in tar.content():
        rest = memoryview(data)
        while rest:
            while not length:
                offset, length = next(parts)
            written = os.pwrite(file, rest[:length], offset)
            offset += written
            length -= written
            rest = rest[written:]
    os.ftruncate(file, entry.size)


def _times(entry: Entry) -> tuple[int, int]:
    atime, mtime = entry.atime, entry.mtime
    if -_TIME_LIMIT < atime < _TIME_LIMIT and -_TIME_LIMIT < mtime < _TIME_LIMIT:
        return atime, mtime
    return tuple(max(-_TIME_LIMIT, min(one, _TIME_LIMIT)) for one in (atime, mtime))  # type: ignore[return-value]


def _shown(name: bytes) -> str:
    return name[:200].decode("utf-8", "backslashreplace")
