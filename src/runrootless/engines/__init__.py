"""What emulates root in a container, and the choice between the ways to do it."""

from __future__ import annotations

from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from runrootless.bundle.identity import Identity

    class Engine(Protocol):
        """What the command line needs of an engine."""

        def apply(self, spec: dict[str, Any], directory: str, identity: Identity) -> None:
            """Change a rootless spec in place so that its process is emulated."""

        def apply_process(
            self, process: dict[str, Any], directory: str, identity: Identity
        ) -> None:
            """Change a process that is to join a running container likewise."""

        def launch(
            self,
            directory: str,
            lock_fd: int,
            state_directory: str,
            log: str,
            log_format: str,
            debug: bool,
        ) -> None:
            """Start what must run beside the container; return in the caller."""

        def emulate(self, log: str, log_format: str, debug: bool) -> None:
            """Emulate root for this process and all that it executes, without a container."""


_NAMES = ("notify",)


def choose(name: str) -> Engine:
    """Return the engine called ``name``, the best one if the name is empty.

    Raises ``Error`` if there is no such engine.
    """
    if name not in ("", "auto", *_NAMES):
        raise Error(f"there is no engine {name}: --engine takes {', '.join(_NAMES)} or auto")
    from runrootless.engines import notify

    return notify
