"""The engine notify with more: it looks at every file that is opened, whatever for.

So emulated device nodes can be opened in any way, and /proc/PID/status shows the emulated
IDs to every program. An open(2) takes as long as a stat(2) then.
"""

from __future__ import annotations

from runrootless.engines import notify
from runrootless.engines.notify import (
    EXECS_FROM_BUNDLE,
    IN_OWN_NAMESPACE,
    REAL_IDS,
    apply_process,
    launch,
    obstacle,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.bundle.identity import Identity
    from runrootless.runtimes import Runtime

__all__ = [
    "EXECS_FROM_BUNDLE",
    "IN_OWN_NAMESPACE",
    "REAL_IDS",
    "apply",
    "apply_process",
    "emulate",
    "launch",
    "obstacle",
]


def apply(spec: dict[str, Any], directory: str, identity: Identity, runtime: Runtime) -> None:
    """Make a rootless spec one that the agent serves. Raises Error."""
    notify.apply(spec, directory, identity, runtime, every_open=True)


def emulate(log: str, log_format: str, debug: bool) -> list[str]:
    """Emulate root for this process from now on, as it is on the host. Raises Error."""
    from runrootless.engines.notify_host import enter

    enter(log, log_format, debug, every_open=True)
    return []
