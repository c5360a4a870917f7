"""The engine none: the bundle is transformed, and nothing is emulated.

A user with subordinate IDs and newuidmap(1) gets a container with all of them, whose
users are real. For all others there is ID 0 alone.
"""

from __future__ import annotations

from runrootless.containers import janitor
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.agent.settings import Settings
    from runrootless.bundle.identity import Identity
    from runrootless.launcher import Words

REAL_IDS = True
IN_OWN_NAMESPACE = False
EXECS_FROM_BUNDLE = True


def obstacle() -> str | None:
    """Return None: it needs nothing but the runtime."""
    return None


def apply(spec: dict[str, Any], directory: str, identity: Identity) -> None:
    """Let the process be ``identity``. Raises Error if one of its IDs is not mapped."""
    for kind, ids, mappings in (
        ("user", (identity.uid,), spec["linux"].get("uidMappings")),
        ("group", (identity.gid, *identity.additional_gids), spec["linux"].get("gidMappings")),
    ):
        if mappings is None:
            # The caller's own namespace, of which the caller knows the IDs.
            continue
        count = sum(mapping["size"] for mapping in mappings)
        for number in ids:
            if number >= count:
                raise Error(
                    f"process.user: the container has no {kind} {number} with the engine none, "
                    f"only {_said(count)}: take the engine notify, or have subordinate IDs "
                    "(/etc/subuid, /etc/subgid, newuidmap)"
                )
    apply_process(spec["process"], directory, identity)


def _said(count: int) -> str:
    return "0" if count == 1 else f"0 to {count - 1}"


def apply_process(process: dict[str, Any], directory: str, identity: Identity) -> None:
    """Let a process (OCI runtime spec, ``process``) run as ``identity``."""
    user = process["user"]
    user["uid"], user["gid"] = identity.uid, identity.gid
    if identity.additional_gids:
        user["additionalGids"] = list(identity.additional_gids)


def launch(settings: Settings) -> None:
    """Have the directory removed when the container is gone. Raises OSError."""
    janitor.attend(settings.directory, settings.state_directory, settings.lock_fd)


def emulate(log: str, log_format: str, debug: bool, words: Words) -> list[str]:
    """Make the caller root of a user namespace, and that is all. Raises Error."""
    from runrootless.engines.notify_host import become_root

    become_root()
    return []
