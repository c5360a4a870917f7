"""Opening device nodes: where the container has the real device, that one is opened.

The kernel opens nothing through an emulated node, which is a whiteout (a character device
0:0, the only one that everybody may make) with a record of the device that it stands for.
Two cases work nevertheless, because much depends on them, and because common calls stay fast.
Opening with O_CREAT, as a shell's ``>`` does, or with O_RDWR gets a memory device such as
/dev/null. And as long as a process has a root that was entered by chroot(2), the nodes in
its /dev are covered by mounts of the caller's devices of the same names.
"""

from __future__ import annotations

import errno
import os
import stat
from _thread import allocate_lock

from runrootless.emulation.call import failure
from runrootless.emulation.owners.ownership import Ownership
from runrootless.emulation.paths.resolution import Paths
from runrootless.emulation.paths.stand_ins import StandIns
from runrootless.emulation.paths.walk import open_child
from runrootless.emulation.stores.lasting_map import LastingMap
from runrootless.linux.files import (
    AT_FDCWD,
    RESOLVE_NO_MAGICLINKS,
    Files,
    handle,
    open_directory,
)
from runrootless.linux.mounts import (
    MNT_DETACH,
    MS_BIND,
    clone_mount,
    mount,
    mount_points,
    unmount,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MEMORY_MAJOR = 1
# By minor number: mem(4), null(4), full(4), random(4).
_MEMORY_DEVICES = {3: b"null", 5: b"zero", 7: b"full", 8: b"random", 9: b"urandom"}
_ROOTS_LIMIT = 64
_NODES_LIMIT = 1024
_MOUNTS_LIMIT = 512


class Devices:
    """Knows the real devices and where they are mounted on emulated nodes."""

    def __init__(self, paths: Paths, ownership: Ownership, stand_ins: StandIns) -> None:
        self._paths = paths
        self._ownership = ownership
        self._stand_ins = stand_ins
        self._lock = allocate_lock()
        self._directory = -1
        self._processes = -1
        self._furnished: list[_Furnished] = []
        self.kept = LastingMap("covers", _ROOTS_LIMIT)
        self.mounted = False
        """Whether ``tidy`` may have something to do."""

    def look(self) -> None:
        """Keep hold of the container's /dev and /proc, once the agent has joined it."""
        self._directory = open_directory(b"/dev")
        self._processes = open_directory(b"/proc")

    def take_over(self) -> None:
        """Begin with the covers that the worker before has mounted, if there was one.

        What is in other mount namespaces than this process's is looked for when a process in
        there has the root no more. Raises OSError.
        """
        self.kept.take_over()
        namespace = os.readlink("thread-self/ns/mnt")
        for (namespace_of, *where), names in self.kept.items():
            found = _Furnished(str(namespace_of), (int(where[0]), int(where[1])), [], names)
            if found.namespace == namespace:
                found.find()
            self._furnished.append(found)
        self.mounted = bool(self._furnished)

    def open(self, pid: int, file: int, flags: int, status: os.stat_result) -> int | None:
        """Return a new descriptor, for a thread, of what a whiteout that is open stands for.

        None where it stands for nothing that this machine has. ``status`` is what stat(2)
        said of it. Only memory devices are opened: for them it does not matter who does.
        Raises OSError as open(2), and EPERM for other devices.
        """
        record = self._ownership.find(file, status.st_mode, status.st_dev, status.st_ino)
        if record is None or not record.device_type:
            return None
        major, minor = os.major(record.device), os.minor(record.device)
        kind = "char" if record.device_type == stat.S_IFCHR else "block"
        name = _MEMORY_DEVICES.get(minor)
        if kind == "char" and major == _MEMORY_MAJOR and name and self._directory >= 0:
            real = open_child(self._directory, name)
            try:
                if real >= 0 and _is_device(real, record.device_type, record.device):
                    return self._stand_ins.open(
                        file, real, lambda: self._mount(pid, real, name), flags
                    )
            finally:
                if real >= 0:
                    os.close(real)
        try:
            path = b"/sys/dev/%b/%d:%d" % (kind.encode(), major, minor)
            os.close(self._paths.open_path(pid, AT_FDCWD, path, 0))
        except OSError:
            return None
        raise failure(errno.EPERM)

    def _mount(self, pid: int, real: int, name: bytes) -> int:
        """Return a descriptor of a mount of an open device that is attached nowhere.

        Raises OSError.
        """
        try:
            return clone_mount(real)
        except OSError:
            # The thread is in another mount namespace: there it has to be that one's.
            own = self._paths.open_path(pid, AT_FDCWD, b"/dev/" + name, 0)
            try:
                if not os.path.samestat(os.fstat(own), os.fstat(real)):
                    raise
                return clone_mount(own)
            finally:
                os.close(own)

    def furnish(self, pid: int, root: int) -> None:
        """Cover the emulated nodes in the /dev of a directory that a thread makes its root.

        ``root`` is a descriptor of the directory. What cannot be covered is left as it is.
        """
        try:
            directory = os.open(
                "dev", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root
            )
        except OSError:
            return
        mounts: list[int] = []
        names: list[bytes] = []
        with self._lock:
            room = _MOUNTS_LIMIT - sum(len(furnished.mounts) for furnished in self._furnished)
        try:
            where = _identity(os.fstat(root))
            namespace = os.readlink("thread-self/ns/mnt")
            key = namespace, *where
            known = self.kept.get(key) or ()

            def note(name: bytes) -> None:
                # Before it is mounted: this process may be killed at any moment.
                names.append(name)
                self.kept.set(key, (*known, *names))

            with os.scandir(directory) as entries:
                # However many there are, others wait meanwhile.
                for _, entry in zip(range(_NODES_LIMIT), entries):
                    if len(mounts) >= room:
                        break
                    covered = self._cover(pid, directory, os.fsencode(entry.name), note)
                    if covered >= 0:
                        mounts.append(covered)
        except OSError:
            if not mounts:
                return
        finally:
            os.close(directory)
        with self._lock:
            self._note(namespace, where, mounts, pid)

    def _note(self, namespace: str, where: tuple[int, int], mounts: list[int], pid: int) -> None:
        """Take note of a root that a thread enters, and of new mounts in its /dev."""
        for furnished in self._furnished:
            if furnished.where == where and furnished.namespace == namespace:
                furnished.mounts += mounts
                furnished.users[pid] = False
                return
        if mounts:
            if len(self._furnished) >= _ROOTS_LIMIT:
                # Of a mount namespace that is gone, most likely.
                self._forget(self._furnished[0])
            self._furnished.append(_Furnished(namespace, where, mounts))
            self._furnished[-1].users[pid] = False
            self.mounted = True
        else:
            self.kept.set((namespace, *where), None)

    def tidy(self) -> None:
        """Remove the mounts of roots that no process has any more, in the current view."""
        if not self._lock.acquire(False):
            # Another thread does it, or waits for a file system: the next call will do.
            return
        try:
            namespace = os.readlink("thread-self/ns/mnt")
            for furnished in list(self._furnished):
                if furnished.namespace == namespace and not self._in_use(furnished):
                    furnished.unmount()
                    self._forget(furnished)
            self.mounted = bool(self._furnished)
        except OSError:
            return
        finally:
            self._lock.release()

    def _forget(self, furnished: _Furnished) -> None:
        furnished.forget()
        self._furnished.remove(furnished)
        self.kept.set((furnished.namespace, *furnished.where), None)

    def _cover(self, pid: int, directory: int, name: bytes, note: Callable[[bytes], None]) -> int:
        """Mount the caller's device of this name on an emulated node; ``note`` is called before.

        Return an O_PATH descriptor of the mount, -1 where there is none.
        """
        real = file = -1
        try:
            file = open_child(directory, name)
            status = os.fstat(file)
            if status.st_rdev or not (stat.S_ISCHR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                return -1
            record = self._ownership.find(file, status.st_mode, status.st_dev, status.st_ino)
            real = self._paths.open_path(pid, AT_FDCWD, b"/dev/" + name, 0)
            if record is None or not _is_device(real, record.device_type, record.device):
                return -1
            note(name)
            mount(handle(real), handle(file), None, MS_BIND, None)
            return open_child(directory, name)
        except OSError:
            return -1
        finally:
            for fd in (real, file):
                if fd >= 0:
                    os.close(fd)

    def _in_use(self, furnished: _Furnished) -> bool:
        users = furnished.users
        for pid in list(users):
            if self._uses(b"%d" % pid, furnished.where):
                users[pid] = True
            elif users[pid] or not os.path.exists(b"%d/root" % pid):
                # It had that root and has not any more; or it has ended.
                del users[pid]
        if users:
            return True
        # Its children may live on.
        processes = handle(self._processes)
        try:
            names = os.listdir(processes)
        except OSError:
            return False
        return any(
            self._uses(processes + b"/" + name, furnished.where) for name in names if name.isdigit()
        )

    def _uses(self, process: bytes, where: tuple[int, int]) -> bool:
        try:
            return _identity(os.stat(process + b"/root")) == where
        except OSError:
            return False


class _Furnished:
    """A root with mounts in its /dev, and the threads that have entered it.

    ``users`` tells of each thread whether it was seen to have that root: the call that
    is about to give it may not have been carried out yet. ``left`` are the names of covers that
    another process has mounted.
    """

    def __init__(
        self, namespace: str, where: tuple[int, int], mounts: list[int], left: Sequence[bytes] = ()
    ) -> None:
        self.namespace = namespace
        self.where = where
        self.mounts = mounts
        self.users: dict[int, bool] = {}
        self._left = left

    def find(self) -> None:
        """Find the covers that another process has mounted, in the current view."""
        left, self._left = self._left, ()
        for path in mount_points() if left else ():
            directory, _, name = path.rpartition(b"/")
            root, _, last = directory.rpartition(b"/")
            if name not in left or last != b"dev":
                continue
            files = Files()
            parent = files.resolve(AT_FDCWD, root or b"/", os.O_DIRECTORY, RESOLVE_NO_MAGICLINKS)
            if parent < 0:
                continue
            try:
                if _identity(os.fstat(parent)) != self.where:
                    continue
                flags = RESOLVE_NO_MAGICLINKS
                file = files.resolve(parent, b"dev/" + name, os.O_NOFOLLOW, flags)
                if file >= 0:
                    self.mounts.append(file)
            finally:
                os.close(parent)

    def unmount(self) -> None:
        self.find()
        for fd in self.mounts:
            try:
                unmount(handle(fd), MNT_DETACH)
            except OSError:
                # Somebody else has done so.
                pass
        self.forget()

    def forget(self) -> None:
        for fd in self.mounts:
            os.close(fd)
        self.mounts = []


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_device(file: int, kind: int, device: int) -> bool:
    """Return whether an open file is the real device of this type (as in st_mode) and number."""
    status = os.fstat(file)
    return bool(device) and stat.S_IFMT(status.st_mode) == kind and status.st_rdev == device
