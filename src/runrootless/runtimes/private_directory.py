"""The private directory of a container, also where the caller's environment leads elsewhere.

Its base directory and its name follow from XDG_RUNTIME_DIR and the path of the state root. Who
comes by cron, ssh or a unit of systemd may have another XDG_RUNTIME_DIR, or none, or another
path to the same state root. But the runtime itself keeps the path of the bundle that it got.
"""

from __future__ import annotations

import os

from runrootless import runtimes
from runrootless.containers import state
from runrootless.errors import Error


def find(container_id: str, root: str) -> str | None:
    """Return the private directory of a container of ours.

    ``None`` if there is no such container, or a runtime was told to make it by somebody else.
    ``root`` is the absolute path of the runtime's state root. Raises ``Error`` where it is one of
    ours whose directory cannot be used, and where that cannot be known.
    """
    directory = state.find_container_directory(container_id, root)
    if directory is not None:
        return directory
    state_directory = os.path.join(root, container_id)
    if not os.path.lexists(state_directory):
        return None
    bundle = runtimes.bundle(state_directory)
    if bundle is None:
        raise Error(
            f"whether root is emulated in {container_id} cannot be known: the runtime's state in "
            f"{state_directory} names no bundle"
        )
    if not _is_of_ours(bundle):
        return None
    objection = _objection(bundle, container_id, root)
    if objection is not None:
        raise Error(
            f"root cannot be emulated for more processes in {container_id}: its private directory "
            f"{bundle} {objection}"
        )
    return bundle


def _is_of_ours(path: str) -> bool:
    """Return whether a path is one that a private directory has, wherever XDG_RUNTIME_DIR led."""
    base, name = os.path.split(path)
    kind, dash, user = os.path.basename(base).partition("-")
    return kind == "runrootless" and (not dash or user.isdigit()) and state.is_name(name)


def _objection(path: str, container_id: str, root: str) -> str | None:
    """Return what makes ``path`` unfit as that of the container, ``None`` if nothing does."""
    try:
        objection = state.objection(os.path.dirname(path))
        if objection is not None:
            return f"is in a directory that {objection}"
        os.stat(os.path.join(path, state.CONFIG))
        lock = state.open_lock(path)
        if lock is None:
            return "has no lock"
        try:
            owner, owner_id = state.read_owner(lock)
        finally:
            os.close(lock)
        # By whatever names.
        if owner_id != container_id or not os.path.samefile(owner, root):
            return "is of another container"
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    return None


def usable(container_id: str, root: str) -> str | None:
    """Return what ``find`` does, ``None`` also where that raises, and for what is no ID."""
    try:
        return find(container_id, root) if state.is_valid_id(container_id) else None
    except Error:
        return None


def all_of(root: str) -> dict[str, str]:
    """Return the private directories of all containers of ours in a state root, by ID."""
    found = state.container_directories(root)
    try:
        names = os.listdir(root)
    except OSError:
        names = []
    for name in names:
        directory = None if name in found else usable(name, root)
        if directory is not None:
            found[name] = directory
    return found
