"""Mounting files in a container whose runtime has made its mounts, and has not begun it."""

from __future__ import annotations

import os

from runrootless.bundle import rootfs
from runrootless.containers import inside
from runrootless.containers.background import said_by_child
from runrootless.errors import Error, one_line
from runrootless.linux.mounts import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    mount,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_FLAGS = MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC


def add(process: int, root: str, mounts: Sequence[dict[str, Any]]) -> None:
    """Make bind mounts of files (OCI config.md, "Mounts") for the container of a process.

    Their sources are paths of its mount namespace, which still has the host's files, and ``root``
    is that of its root file system there. Raises Error.
    """
    if not mounts:
        return

    def mount_all() -> str:
        try:
            inside.enter(process)
            for one in mounts:
                _add(root, one)
        except (OSError, Error) as error:
            return one_line(error)
        return ""

    problem, status = said_by_child(mount_all)
    if problem or status:
        names = ", ".join(one["destination"] for one in mounts)
        raise Error(f"cannot mount {names} in the container: {problem or 'what does has ended'}")


def _add(root: str, one: dict[str, Any]) -> None:
    place = rootfs.find(root, one["destination"])
    try:
        place.make_missing()
        target = f"/proc/self/fd/{place.directory}/{place.name}".encode()
        if place.mode is None:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644))
        mount(os.fsencode(one["source"]), target, None, MS_BIND, None)
        # By its path once more, which leads to the mount from now on.
        mount(None, target, None, _FLAGS | (MS_RDONLY if "ro" in one["options"] else 0), None)
    finally:
        place.close()
