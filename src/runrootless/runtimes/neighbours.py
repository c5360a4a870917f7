"""The container of ours whose namespaces a bundle names, as the containers of a pod do.

A namespace belongs to a user namespace, and only who is root there may join it: setns(2). A
container of ours has one of its own. So a process that is to join another one of a container
has to join that as well, whether the bundle names it or not.
"""

from __future__ import annotations

import errno
import os
from fcntl import ioctl

from runrootless.containers import state
from runrootless.errors import Error
from runrootless.linux.namespaces import owner as owner_of
from runrootless.runtimes import init_pid, user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.bundle.host import HostFacts

# <linux/nsfs.h>, see ioctl_ns(2).
_NS_GET_NSTYPE = 0xB703
# The names in /proc/PID/ns, where they are not the types of OCI config-linux.md.
_NAMES = {"network": "net", "mount": "mnt"}
# What NS_GET_NSTYPE says of each: CLONE_NEW… of <linux/sched.h>.
_TYPES = {
    "time": 0x80,
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
}


class Neighbour:
    """A running container: its private ``directory`` and the ``pid`` of its first process.

    ``user_namespace`` is the path of its user namespace, empty where that is the caller's own.
    """

    __slots__ = ("directory", "pid", "user_namespace")

    def __init__(self, directory: str, pid: int, user_namespace: str) -> None:
        self.directory = directory
        self.pid = pid
        self.user_namespace = user_namespace


def find(spec: dict[str, Any], host: HostFacts) -> Neighbour | None:
    """Return the container whose namespaces a process of ``spec`` is to join, None if none.

    In the caller's own user namespace, as podman's pods are, only that of processes matters.

    Entries of ``spec`` that name a namespace that the caller is in anyway are removed. Raises
    Error where the namespaces are not all of one container of ours.
    """
    namespaces = spec.get("linux", {}).get("namespaces", [])
    wanted: dict[tuple[int, int], str] = {}
    processes = None
    for entry in list(namespaces):
        kind, path = entry.get("type", ""), entry.get("path", "")
        if not path:
            continue
        try:
            namespace, owner = _look_at(path, kind)
        except OSError as error:
            reason = "it is not a namespace" if error.errno == errno.ENOTTY else error.strerror
            raise Error(
                f"linux.namespaces: cannot join the {kind} namespace {path}: {reason}"
            ) from None
        if kind == "mount":
            # The runtimes fail in it, each with an error that tells nothing.
            raise Error(
                f"linux.namespaces: cannot join the mount namespace {path}: the bundle's root "
                "file system is not there; leave the path out"
            )
        if namespace == _own(kind):
            namespaces.remove(entry)
        elif kind == "user" or owner != _own("user") or not host.owns_user_namespace():
            wanted.setdefault(owner, path)
        elif kind == "pid":
            processes = namespace
    if not wanted:
        return _find("pid", processes) if processes else None
    if len(wanted) > 1:
        first, second, *_ = wanted.values()
        raise Error(
            f"linux.namespaces: {first} and {second} belong to different user namespaces, "
            "and a process is in one only"
        )
    ((owner, path),) = wanted.items()
    found = _find("user", owner)
    # One that a process of the container has made is open to others that have made it.
    if found is None or not user_namespace.is_as_begun(found.pid, found.directory):
        raise Error(
            f"linux.namespaces: {path} is not of a running container that runrootless has started "
            "for you: a user can join no other"
        )
    return found


def _find(kind: str, namespace: tuple[int, int]) -> Neighbour | None:
    """Return a running container whose first process is in a namespace, None if there is none."""
    for directory, root, container_id in state.all_directories():
        pid = init_pid(os.path.join(root, container_id))
        try:
            if pid is not None and _of(pid, kind) == namespace:
                return Neighbour(directory, pid, f"/proc/{pid}/ns/user" if kind == "user" else "")
        except OSError:
            # It has ended.
            continue
    return None


def _look_at(path: str, kind: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return by what a namespace is known, and the user namespace it belongs to. Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = ioctl(file, _NS_GET_NSTYPE)
        if found != _TYPES.get(kind, found):
            raise OSError(errno.EINVAL, "it is of another type")
        namespace = _identity(file)
        if kind == "user":
            return namespace, namespace
        try:
            owner = owner_of(file)
        except PermissionError:
            # Of the host, to a caller that is in a user namespace below.
            return namespace, (0, 0)
        try:
            return namespace, _identity(owner)
        finally:
            os.close(owner)
    finally:
        os.close(file)


def _own(kind: str) -> tuple[int, int] | None:
    try:
        return _of("self", _NAMES.get(kind, kind))
    except OSError:
        return None


def _of(process: int | str, name: str) -> tuple[int, int]:
    found = os.stat(f"/proc/{process}/ns/{name}")
    return found.st_dev, found.st_ino


def _identity(file: int) -> tuple[int, int]:
    found = os.fstat(file)
    return found.st_dev, found.st_ino
