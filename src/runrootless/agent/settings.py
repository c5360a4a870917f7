"""The settings of what an engine starts beside the runtime."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Mapping, Sequence
    from typing import Any

CREDENTIALS_NAME = "credentials"
"""Name of the credential table in a container's private directory."""


class Settings:
    """The settings of the agent, or of another process that an engine starts beside the runtime.

    ``directory`` is the container's private directory, with its derived bundle, and
    ``lock_fd`` its locked lock file; ``state_directory`` is where the runtime keeps the
    container's state as long as it exists, empty where that is not known, and ``rootfs`` its root
    file system, empty where there is no container. ``side_stores`` is what the paths of the
    side stores begin with: those that follow count where they cannot be made by the first.
    With ``thorough`` the permissions of emulated users are checked. ``terminal_group`` is the
    group of terminals in the bundle's devpts, None where it names none. ``fast_path`` is the path
    of the object that answers in programs, empty where there is none. ``runtime`` is the process
    ID of the process that makes this, which becomes the runtime. ``devices`` are to be made in the
    container, as ``bundle.devices`` has them. ``tracer`` is the agent's end of a socket pair, by
    which a tracer hands over listeners, None where there is no tracer.
    """

    __slots__ = (
        "debug",
        "devices",
        "directory",
        "fast_path",
        "lock_fd",
        "log",
        "log_format",
        "rootfs",
        "runtime",
        "side_stores",
        "state_directory",
        "terminal_group",
        "thorough",
        "tracer",
    )

    def __init__(
        self,
        directory: str,
        lock_fd: int,
        state_directory: str,
        log: str,
        log_format: str,
        debug: bool,
        side_stores: Sequence[str],
        rootfs: str = "",
        thorough: bool = False,
        terminal_group: int | None = None,
        fast_path: str = "",
        devices: Sequence[Mapping[str, Any]] = (),
        tracer: _socket.socket | None = None,
    ) -> None:
        self.directory = directory
        self.lock_fd = lock_fd
        self.state_directory = state_directory
        self.log = log
        self.log_format = log_format
        self.debug = debug
        self.side_stores = side_stores
        self.rootfs = rootfs
        # While it lives: a short one may have ended before anybody asks.
        self.runtime = os.getpid()
        self.thorough = thorough
        self.terminal_group = terminal_group
        self.fast_path = fast_path
        self.devices = devices
        self.tracer = tracer
