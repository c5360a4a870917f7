"""The private directory of each container: the derived bundle and the agent's socket.

They are in ``$XDG_RUNTIME_DIR/runrootless``, or in ``/tmp/runrootless-UID`` for
callers without one.  A container's directory is named after its ID and its
state root, so that ``exec`` finds it, and holds a file ``lock``: the agent keeps
a flock(2) on it while the container exists, and where there is no agent, the janitor
until the runtime has made the container.  So a directory whose lock is free and whose
container the runtime does not know is left over from a crash.

Directories come and go under a flock on the base directory.  So a directory
that is being made is never taken for one left over.
"""

from __future__ import annotations

import os
from binascii import crc32
from errno import EACCES, EAGAIN
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock, lockf
from stat import S_IMODE, S_ISDIR, S_IWGRP, S_IWOTH

from runrootless.errors import Error, named, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# sockaddr_un.sun_path, less the null byte: unix(7).
_MAXIMUM_SOCKET_PATH = 107
_MAXIMUM_NAME = 64
_WRITTEN_BY_OTHERS = S_IWGRP | S_IWOTH
# NAME_MAX of <linux/limits.h>.
_MAXIMUM_ID = 255
# How long the agent of a container that has just ended may take to leave.
_PATIENCE = 5.0
_ID_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+,-."

NOWHERE = "/dev/null"
"""The state root where no runtime keeps state of what has a directory here."""

LISTENER = "listener"
CONFIG = "config.json"
# How PRoot is executed, in the directory of a container that runs under it; and in the base
# directory, where the containers are that PRoot carries alone.
PROOT = "proot"
_LOCK = "lock"
# The sticky bit keeps systemd-tmpfiles(8) from removing old files of /tmp.
MODE = 0o1600


class ContainerDirectory:
    """A directory just made: its ``path``, and ``lock_fd``, which holds its lock.

    The lock lasts until every copy of ``lock_fd`` is closed (fork duplicates it,
    exec closes it).
    """

    __slots__ = ("lock_fd", "path")

    def __init__(self, path: str, lock_fd: int) -> None:
        self.path = path
        self.lock_fd = lock_fd


def is_valid_id(container_id: str) -> bool:
    r"""Return whether ``container_id`` can be the name of a file, as runtimes make it.

    crun takes all of these, and runc those that its ``^[\w+-\.]+$`` matches.
    """
    return (
        0 < len(os.fsencode(container_id)) <= _MAXIMUM_ID
        and "/" not in container_id
        and "\0" not in container_id
        and container_id not in (".", "..")
    )


def require_valid_id(container_id: str) -> None:
    """Raise ``Error`` in runc's words unless a container may have this ID.

    With crun one that has a slash would have its state outside of the state root.
    """
    if not container_id:
        raise Error("container id cannot be empty")
    if len(os.fsencode(container_id)) > _MAXIMUM_ID:
        raise Error(f"the container ID {container_id} has over {_MAXIMUM_ID} bytes: shorten it")
    if not is_valid_id(container_id):
        raise Error(f"invalid container ID format: {container_id}")


def base_directories() -> list[str]:
    """Return where container directories may be, the one for new ones first."""
    bases = [f"/tmp/runrootless-{os.geteuid()}"]
    runtime_directory = own_runtime_directory()
    if runtime_directory is not None:
        bases.insert(0, os.path.join(runtime_directory, "runrootless"))
    return bases


def has_proot_containers() -> bool:
    """Return whether there may be containers that PRoot carries alone."""
    return any(os.path.isdir(os.path.join(base, PROOT)) for base in base_directories())


def own_runtime_directory() -> str | None:
    """Return $XDG_RUNTIME_DIR if it is absolute, a directory and the caller's own to write to."""
    path = os.environ.get("XDG_RUNTIME_DIR", "")
    return None if _unfit(path) else path


def runtime_directory_refusal() -> str:
    """Return why /tmp is used in place of $XDG_RUNTIME_DIR, empty where it is not."""
    path = os.environ.get("XDG_RUNTIME_DIR", "")
    why = _unfit(path)
    return f"XDG_RUNTIME_DIR{f', {path},' if path else ''} {why}" if why else ""


def _unfit(path: str) -> str:
    """Return what keeps a directory from being the caller's $XDG_RUNTIME_DIR, or nothing."""
    if not path:
        return "is not set"
    if not path.startswith("/"):
        return "is not absolute"
    try:
        found = os.stat(path)
    except OSError as error:
        return f"cannot be used ({error.strerror})"
    if not S_ISDIR(found.st_mode):
        return "is not a directory"
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}"
    if found.st_mode & _WRITTEN_BY_OTHERS:
        # They could put something else in the place of what is in it, or of what is to be.
        return f"can be written to by others (mode {S_IMODE(found.st_mode):04o})"
    if not os.access(path, os.W_OK | os.X_OK):
        return "cannot be written to"
    return ""


def open_base() -> str:
    """Return the base directory, made if need be, with mode 0700.

    Raises ``Error`` if something else is in its place: /tmp is everybody's.
    """
    path = base_directories()[0]
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise Error(
            f"cannot make the private directory {path}: {error.strerror}: "
            "set XDG_RUNTIME_DIR to a directory of your own"
        ) from None
    found = objection(path)
    if found is not None:
        raise Error(
            f"the private directory {path} {found}: remove it, "
            "or set XDG_RUNTIME_DIR to a directory of your own"
        )
    return path


def objection(path: str) -> str | None:
    """Return what makes ``path`` unfit as a private directory, ``None`` if nothing does."""
    found = os.lstat(path)
    if not S_ISDIR(found.st_mode):
        return "is not a directory"
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}"
    if S_IMODE(found.st_mode) & 0o777 != 0o700:
        return f"has mode {S_IMODE(found.st_mode):04o} in place of 0700"
    return None


def _name(container_id: str, root: str) -> str:
    suffix = f"-{crc32(os.fsencode(root)):08x}"
    if len(container_id) + len(suffix) > _MAXIMUM_NAME or container_id.strip(_ID_CHARACTERS):
        plain = "".join(one for one in container_id[:32] if one in _ID_CHARACTERS)
        container_id = f"{plain}-{crc32(os.fsencode(container_id)):08x}"
    return container_id + suffix


def is_name(name: str) -> bool:
    """Return whether a name in a base directory may be that of a container's directory."""
    # Runtimes may have their state roots beside the containers' directories.
    return name[-9:-8] == "-" and not name[-8:].strip("0123456789abcdef")


def find_container_directory(container_id: str, root: str) -> str | None:
    """Return the directory of a container of ours, ``None`` if there is none.

    ``root`` is the absolute path of the runtime's state root.
    """
    name = _name(container_id, root)
    for base in base_directories():
        try:
            if objection(base) is None and os.path.isfile(os.path.join(base, name, CONFIG)):
                return os.path.join(base, name)
        except OSError:
            pass
    return None


def container_directories(root: str) -> dict[str, str]:
    """Return the directories of all containers of ours whose state is in ``root``, by ID."""
    found: dict[str, str] = {}
    for path, owner, container_id in all_directories():
        if owner == root:
            found.setdefault(container_id, path)
    return found


def all_directories() -> list[tuple[str, str, str]]:
    """Return the directory, the state root and the ID of each container of ours."""
    found = []
    for base in base_directories():
        try:
            names = os.listdir(base) if objection(base) is None else []
        except OSError:
            continue
        for name in names:
            path = os.path.join(base, name)
            owner = _owner(path) if is_name(name) else None
            if owner is not None:
                found.append((path, *owner))
    return found


def create_container_directory(base: str, container_id: str, root: str) -> ContainerDirectory:
    """Make and lock the directory of a new container.

    ``base`` is as ``open_base`` returns it, ``root`` the absolute path of the
    runtime's state root.  What a dead container of that name left is removed.

    Raises ``Error`` as the runtime would if there is a container of that ID.
    """
    path = os.path.join(base, _name(container_id, root))
    waited = 0.0
    while True:
        if os.path.lexists(os.path.join(root, container_id)):
            raise _exists(container_id)
        base_lock = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        try:
            flock(base_lock, LOCK_EX)
            if _remove_if_unlocked(base_lock, path):
                return _make(base_lock, path, container_id, root)
        except OSError as error:
            raise Error(f"cannot make the directory {one_line(named(error, path))}") from None
        finally:
            os.close(base_lock)
        # Locked, and no container: either it is being created or its agent is
        # about to leave.  One of the two shows soon.
        if waited >= _PATIENCE:
            raise _exists(container_id)
        from time import sleep

        sleep(0.005)
        waited += 0.005


def _exists(container_id: str) -> Error:
    return Error(f"container with given ID already exists: {container_id}")


def _make(base_fd: int, path: str, container_id: str, root: str) -> ContainerDirectory:
    os.mkdir(path, 0o700)
    lock = -1
    try:
        lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_EXCL, MODE)
        flock(lock, LOCK_EX | LOCK_NB)
        owner = os.fsencode(f"{root}\0{container_id}")
        while owner:
            owner = owner[os.write(lock, owner) :]
    except BaseException:
        if lock >= 0:
            os.close(lock)
        remove_locked(base_fd, os.path.basename(path))
        raise
    return ContainerDirectory(path, lock)


def _owner(path: str) -> tuple[str, str] | None:
    """Return the state root and the ID of the container that ``path`` is the directory of."""
    lock = open_lock(path)
    if lock is None:
        return None
    try:
        return read_owner(lock)
    finally:
        os.close(lock)


def read_owner(lock: int) -> tuple[str, str]:
    """Return the state root and the ID that an open lock file names; empty where it is new."""
    root, _, container_id = os.fsdecode(os.read(lock, 1 << 16)).partition("\0")
    return root, container_id


def _remove_if_unlocked(base_fd: int, path: str) -> bool:
    """Remove the directory ``path`` unless its lock is held; return whether it is gone.

    The base directory, open as ``base_fd``, must be locked.
    """
    lock = open_lock(path)
    if lock is not None:
        try:
            if not try_lock(lock):
                return False
        finally:
            os.close(lock)
    remove_locked(base_fd, os.path.basename(path))
    return True


def open_lock(path: str) -> int | None:
    """Return a descriptor of the lock file of a container's directory, None where there is none."""
    try:
        return os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return None


def try_lock(file: int) -> bool:
    """Take the flock(2) of an open file unless somebody has it; return whether it is had now."""
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except OSError as error:
        if error.errno in (EAGAIN, EACCES):
            return False
        raise
    return True


def remove_container_directory(path: str) -> None:
    """Remove a container's directory and the files in it; no error if it is gone.

    Only for who holds the directory's lock.
    """
    try:
        base_fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        remove_from_base(base_fd, os.path.basename(path))
    finally:
        os.close(base_fd)


def remove_from_base(base_fd: int, name: str) -> None:
    """Do as ``remove_container_directory`` where the path leads elsewhere by now.

    ``base_fd`` is the base directory, open for reading, ``name`` a directory in
    it: an agent that has changed its mount namespace needs no more.
    """
    flock(base_fd, LOCK_EX)
    try:
        remove_locked(base_fd, name)
    finally:
        flock(base_fd, LOCK_UN)


def remove_locked(base_fd: int, name: str) -> None:
    """Do as ``remove_from_base`` for who holds the lock of the base directory."""
    try:
        directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=base_fd)
    except OSError:
        return
    try:
        # The lock goes last: a directory without one is an empty directory.
        for file in sorted(os.listdir(directory), key=_LOCK.__eq__):
            os.unlink(file, dir_fd=directory)
        os.rmdir(name, dir_fd=base_fd)
    except OSError:
        # Something that is not ours is in it: then it stays, as garbage.
        pass
    finally:
        os.close(directory)


def is_served(path: str) -> bool:
    """Return whether somebody listens for more processes in the container of this directory.

    Who does so has a lock of fcntl(2), which children do not inherit, on the lock file. Before it
    has that, it has the socket, and the container may have begun meanwhile.
    """
    lock = open_lock(path)
    if lock is None:
        return False
    try:
        lockf(lock, LOCK_SH | LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return _is_listened_to(f"{path}/{LISTENER}")


def at_socket(path: str, do: Callable[[str], object]) -> None:
    """Bind or connect a unix socket, ``do``, at a path of any length. Raises OSError."""
    if len(os.fsencode(path)) <= _MAXIMUM_SOCKET_PATH:
        do(path)
        return
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        do(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def _is_listened_to(path: str) -> bool:
    """Return whether a process has the listening socket of that path."""
    import _socket

    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        at_socket(path, connection.connect)
    except BlockingIOError:
        # Many wait there: connect(2), EAGAIN.
        return True
    except OSError:
        return False
    finally:
        connection.close()
    return True
