"""Whose the files of a process in /proc are: its effective IDs, proc(5)."""

from __future__ import annotations

import os

from runrootless.emulation.credential_table import INFINITY
from runrootless.emulation.identity import Identity
from runrootless.linux.files import Files

_LIMIT_NAME = b"\nMax realtime timeout"


class ProcessFiles:
    """Finds the process that a file of procfs belongs to."""

    def __init__(self, files: Files, identity: Identity) -> None:
        self._files = files
        self._identity = identity
        self._agent_device = self._device = -1

    def look(self) -> None:
        """Find out what is procfs, once the agent has joined the container.

        ``/proc`` is the container's, and the working directory the agent's /proc.
        """
        self._agent_device = os.stat(".").st_dev
        try:
            self._device = os.stat("/proc").st_dev
        except OSError:
            self._device = self._agent_device
        if self._device == os.stat("/").st_dev:
            # A plain directory: nothing is mounted on it.
            self._device = self._agent_device

    def concerns(self, device: int) -> bool:
        """Return whether a file on this device may be a process's."""
        return device == self._device or device == self._agent_device

    def owner(self, name: bytes, flags: int) -> tuple[int, int] | None:
        """Return the effective IDs of the process that a file is about, None if there is none."""
        fd = self._files.open_path(name, flags)
        if fd < 0:
            return None
        try:
            path = os.readlink(b"self/fd/%d" % fd)
            if os.fstat(fd).st_dev == self._agent_device:
                # The number in the path is the agent's too, wherever this is mounted.
                credentials = self._identity.of(int(os.path.basename(_process(path))))
            else:
                credentials = self._identity.of_limit(_identity_limit(path))
        except (OSError, ValueError):
            return None
        finally:
            os.close(fd)
        return credentials.uids[1], credentials.gids[1]


def _identity_limit(path: bytes) -> int:
    """Return the soft limit of RLIMIT_RTTIME of the process whose file is at ``path``.

    By way of its file ``limits``, since the agent knows no process by the number that
    the container gives it. Raises OSError, and ValueError where it is no process's file.
    """
    with open(_process(path) + b"/limits", "rb", buffering=0) as file:
        text = file.read(4096)
    soft = text.partition(_LIMIT_NAME)[2].split(maxsplit=1)[0]
    return INFINITY if soft == b"unlimited" else int(soft)


def _process(path: bytes) -> bytes:
    """Return the directory of the process whose file is at ``path``; ValueError if it is none's."""
    parts = path.split(b"/")
    for position, part in enumerate(parts, 1):
        if part.isdigit():
            return b"/".join(parts[:position])
    raise ValueError(path)
