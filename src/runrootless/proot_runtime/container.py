"""A container under PRoot alone: its directory, its state, its lock.

The directory holds ``state.json``, ``config.json`` (the spec as it was changed), ``proot.json``
(the words that execute PRoot), ``tmp`` (PRoot's own), ``mounts`` (what stands for a tmpfs), as
long as the container is not started a FIFO ``start``, and ``lock``.  The supervisor of the
container keeps a flock(2) on that, so a container whose lock is free has stopped.
"""

from __future__ import annotations

import os
import shutil
import time
from binascii import crc32
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock

from runrootless.bundle import json_file
from runrootless.containers import state
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STATE = "state.json"
_LOCK = "lock"
_START = "start"
_UNFINISHED_SECONDS = 60
CONFIG = "config.json"
WORDS = "proot.json"


class Container:
    """A container whose directory is ``path``; ``data`` is what its state file says."""

    def __init__(self, container_id: str, path: str, data: dict[str, Any] | None = None) -> None:
        self.id = container_id
        self.path = path
        self.data = data or {}

    @property
    def pid(self) -> int:
        """The process ID of its PRoot."""
        pid: int = self.data["pid"]
        return pid

    @property
    def start_path(self) -> str:
        """The FIFO that a created container waits at."""
        return f"{self.path}/{_START}"

    def status(self) -> str:
        """Return ``created``, ``running`` or ``stopped``: OCI runtime.md, "State"."""
        if not self._is_supervised():
            return "stopped"
        return "created" if os.path.exists(self.start_path) else "running"

    def state(self) -> dict[str, Any]:
        """Return the state as ``runc state`` prints it."""
        status = self.status()
        known = {key: value for key, value in self.data.items() if key != "supervisor"}
        return {
            "ociVersion": known.pop("ociVersion"),
            "id": self.id,
            "pid": 0 if status == "stopped" else self.pid,
            "status": status,
            **{key: value for key, value in known.items() if key != "pid"},
        }

    def lock(self) -> int:
        """Take the lock of a new container; return the descriptor that holds it."""
        lock = os.open(f"{self.path}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        flock(lock, LOCK_EX | LOCK_NB)
        return lock

    def save(self, **data: Any) -> None:
        """Write the state file, all at once."""
        self.data = data
        json_file.write(f"{self.path}/{_STATE}.new", data)
        os.rename(f"{self.path}/{_STATE}.new", f"{self.path}/{_STATE}")

    def remove(self) -> None:
        """Remove the directory, and those above it that it leaves empty."""
        # What stands for a tmpfs may hold directories that are closed to their owner.
        for parent, names, _ in os.walk(self.path):
            for name in names:
                if not os.path.islink(f"{parent}/{name}"):
                    os.chmod(f"{parent}/{name}", 0o700)
        shutil.rmtree(self.path, ignore_errors=True)
        for parent in (os.path.dirname(self.path), os.path.dirname(os.path.dirname(self.path))):
            try:
                os.rmdir(parent)
            except OSError:
                return

    def discard(self) -> None:
        """Remove all that there is of a container which has stopped."""
        temporary = f"{self.path}/tmp"
        if os.path.islink(temporary):
            shutil.rmtree(os.readlink(temporary), ignore_errors=True)
        self.remove()

    def _is_supervised(self) -> bool:
        try:
            lock = os.open(f"{self.path}/{_LOCK}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            flock(lock, LOCK_SH | LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(lock)
        return False


def _root(base: str, state_root: str) -> str:
    return os.path.join(base, state.PROOT, f"{crc32(os.fsencode(state_root)):08x}")


def make(container_id: str, state_root: str) -> Container:
    """Make the directory of a new container.

    ``state_root`` is where the runtime proper keeps its state; containers of one ID in
    different ones are different.  Raises Error if there is such a container.
    """
    root = _root(state.open_base(), state_root)
    path = os.path.join(root, container_id)
    for _ in range(100):
        try:
            os.makedirs(root, 0o700, exist_ok=True)
            os.mkdir(path, 0o700)
        except FileExistsError:
            if _is_unfinished(path):
                Container(container_id, path).remove()
                continue
            raise Error(f"container with given ID already exists: {container_id}") from None
        except FileNotFoundError:
            # Who removed the last container has removed the directory above it too.
            continue
        except OSError as error:
            raise Error(f"cannot make the directory {path}: {error.strerror}") from None
        return Container(container_id, path)
    raise Error(f"cannot make the directory {path}: it is removed again and again")


def _is_unfinished(path: str) -> bool:
    """Return whether the maker of this directory died before there was a container."""
    try:
        old = time.time() - os.stat(path).st_mtime > _UNFINISHED_SECONDS
    except FileNotFoundError:
        return True
    return old and not os.path.exists(f"{path}/{_STATE}")


def find(container_id: str, state_root: str) -> Container | None:
    """Return a container, ``None`` if there is none of that ID."""
    if not state.is_valid_id(container_id):
        return None
    for base in state.base_directories():
        path = os.path.join(_root(base, state_root), container_id)
        try:
            return Container(container_id, path, json_file.read(f"{path}/{_STATE}"))
        except OSError:
            continue
    return None


def all_of(state_root: str) -> list[Container]:
    """Return all containers, sorted by ID."""
    names: set[str] = set()
    for base in state.base_directories():
        try:
            names.update(os.listdir(_root(base, state_root)))
        except OSError:
            continue
    found = [find(name, state_root) for name in sorted(names)]
    return [container for container in found if container is not None]
