"""The engine notify with more: all calls that use files are intercepted.

So emulated users may do only what a file's permissions allow, emulated device nodes can be
opened in any way, and /proc/PID/status shows the emulated IDs to every program. Each of
these calls takes as long as a stat(2) then.
"""

from __future__ import annotations

from runrootless.engines import notify
from runrootless.engines.notify import (
    EXECS_FROM_BUNDLE,
    IN_OWN_NAMESPACE,
    REAL_IDS,
    apply,
    apply_process,
    obstacle,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.agent.settings import Settings
    from runrootless.launcher import Words

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


def launch(settings: Settings) -> None:
    """Start the agent beside the runtime that this process will become. Raises Error."""
    settings.thorough = True
    notify.launch(settings)


def emulate(log: str, log_format: str, debug: bool, words: Words) -> list[str]:
    """Return the words that run a command with root emulated on the host. Raises Error."""
    from runrootless.engines.notify_host import enter

    return enter(log, log_format, debug, words, thorough=True)
