"""Mounting files in a container whose runtime has made its mounts, and has not begun it."""

from __future__ import annotations

import os

from runrootless.bundle import rootfs
from runrootless.errors import Error, one_line
from runrootless.linux.mounts import mount
from runrootless.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, setns
from runrootless.linux.process import set_dumpable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

# <sys/mount.h>.
_READ_ONLY, _NO_SUID, _NO_DEV, _NO_EXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096
_FLAGS = _NO_SUID | _NO_DEV | _NO_EXEC


def add(process: int, root: str, mounts: Sequence[dict[str, Any]]) -> None:
    """Make bind mounts of files (OCI config.md, "Mounts") for the container of a process.

    Their sources are paths of its mount namespace, which still has the host's files, and ``root``
    is that of its root file system there. Raises Error.
    """
    if not mounts:
        return
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            _enter(process)
            for one in mounts:
                _add(root, one)
        except (OSError, Error) as error:
            os.write(writer, one_line(error).encode("utf-8", "replace"))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as file:
        problem = file.read()
    _, status = os.waitpid(child, 0)
    if problem or status:
        names = ", ".join(one["destination"] for one in mounts)
        raise Error(f"cannot mount {names} in the container: {problem or 'what does has ended'}")


def _enter(process: int) -> None:
    directory = f"/proc/{process}/ns"
    user = os.open(f"{directory}/user", os.O_RDONLY | os.O_CLOEXEC)
    mounts = os.open(f"{directory}/mnt", os.O_RDONLY | os.O_CLOEXEC)
    # Who has capabilities in that namespace is not to look into this process, which has the
    # host's files: it could be another container's that is joined.
    set_dumpable(False)
    if os.fstat(user).st_ino != os.stat("/proc/self/ns/user").st_ino:
        setns(user, CLONE_NEWUSER)
    setns(mounts, CLONE_NEWNS)


def _add(root: str, one: dict[str, Any]) -> None:
    place = rootfs.find(root, one["destination"])
    try:
        target = f"/proc/self/fd/{place.directory}/{place.name}".encode()
        if place.mode is None:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644))
        mount(os.fsencode(one["source"]), target, None, _BIND, None)
        flags = _FLAGS | (_READ_ONLY if "ro" in one["options"] else 0)
        # By its path once more, which leads to the mount from now on.
        mount(None, target, None, _BIND | _REMOUNT | flags, None)
    finally:
        place.close()
