"""The engine notify for a container where an agent of ours serves the caller already.

A process can have one seccomp listener only, which its children inherit: seccomp(2). So
the container gets none of its own. The agent that is there follows its processes into
their namespaces, and also answers the runtime when that becomes the wanted user.
"""

from __future__ import annotations

import os

from runrootless.engines import none
from runrootless.engines.notify import is_served
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.agent.settings import Settings
    from runrootless.bundle.identity import Identity
    from runrootless.launcher import Words

REAL_IDS = False
IN_OWN_NAMESPACE = False
EXECS_FROM_BUNDLE = False


def obstacle() -> str | None:
    """Return None: it is taken only where it can work."""
    return None


def apply(spec: dict[str, Any], directory: str, identity: Identity) -> None:
    """Let the process be ``identity``. Raises Error."""
    apply_process(spec["process"], directory, identity)


def apply_process(process: dict[str, Any], directory: str, identity: Identity) -> None:
    """Let a process (OCI runtime spec, ``process``) be ``identity``. Raises Error, OSError.

    This process gets its supplementary groups, and hands them on. A runtime does not set
    any where /proc/self/setgroups says that the kernel would refuse: user_namespaces(7).
    """
    if not is_served():
        raise Error(
            "the container was started under `runrootless emulate`, and can only be entered there"
        )
    process["user"].update(uid=identity.uid, gid=identity.gid)
    os.setgroups(identity.additional_gids)


def launch(settings: Settings) -> None:
    """Have the directory removed when the container is gone. Raises OSError."""
    none.launch(settings)


def emulate(log: str, log_format: str, debug: bool, words: Words) -> list[str]:
    """Do nothing: this process is under emulation. Raises Error where it is not root."""
    if os.geteuid() != 0:
        raise Error(
            "system calls are intercepted here already, and there can be one listener only: "
            "become root again, where root is emulated, or call it from outside"
        )
    return []
