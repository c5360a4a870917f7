"""Starting the agent from the command line, right before it becomes the runtime.

Imported on the start-up path: what only the agent needs is imported in its process.
"""

from __future__ import annotations

import _socket
import os

from runrootless.agent.side_files import open_side_files
from runrootless.bundle.host import HostFacts
from runrootless.containers import background
from runrootless.containers.state import LISTENER, at_socket
from runrootless.errors import Error, one_line

_BACKLOG = 64
_MEMORY = 192 << 20
_INFINITY = (1 << 64) - 1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.agent.settings import Settings
    from runrootless.agent.side_files import SideFile


def launch(settings: Settings) -> None:
    """Bind the listener socket and start the agent as a process of its own; return at once.

    Raises Error if the socket, the process, its memory or the side stores cannot be had.
    """
    require_limits()
    path = f"{settings.directory}/{LISTENER}"

    def warn(message: str) -> None:
        from runrootless.report import report

        report(message, settings.log, settings.log_format, "warning")

    def explain(message: str) -> None:
        if settings.debug:
            from runrootless.report import debug

            debug(message, settings.log, settings.log_format)

    side_files: dict[str, SideFile] = {}
    try:
        side_files = open_side_files(settings.side_stores, settings.rootfs, warn, explain)
        socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        mask = os.umask(0o077)
        try:
            at_socket(path, socket.bind)
        finally:
            os.umask(mask)
        socket.listen(_BACKLOG)
        background.spawn(lambda runtime: _run(settings, socket, runtime, side_files))
    except OSError as error:
        for file in side_files.values():
            file.leave()
        raise Error(f"cannot start the agent for {path}: {one_line(error)}") from None
    socket.close()
    # The runtime that this process becomes has no use for the others: close-on-exec.


def require_limits() -> None:
    """Raise Error where a limit (setrlimit(2)) leaves too little for the agent and its work."""
    limits = HostFacts()
    real_time = limits.hard_limit("RLIMIT_RTTIME")
    if real_time is not None and real_time < _INFINITY:
        raise Error(
            "RLIMIT_RTTIME is limited (`ulimit -HR`), and it is where a process carries who it is: "
            "it takes a session without that limit"
        )
    for name, option in (("RLIMIT_AS", "v"), ("RLIMIT_DATA", "d")):
        limit = limits.hard_limit(name)
        if limit is not None and limit < _MEMORY:
            raise Error(
                f"the agent cannot do with {limit >> 20} MiB of memory, {name} "
                f"(`ulimit -H{option}`): it takes {_MEMORY >> 20} MiB"
            )


def _run(
    settings: Settings, socket: _socket.socket, runtime: int, side_files: dict[str, SideFile]
) -> None:
    from runrootless.agent.process import run

    run(settings, socket, runtime, side_files)
