"""The notify engine: seccomp hands the calls over, an agent answers them.

The launcher installs the filter, ``runrootless.launcher``; the rest is here.
"""

from __future__ import annotations

import os

from runrootless.agent.launch import launch as launch_agent
from runrootless.agent.settings import CREDENTIALS_NAME
from runrootless.bundle.profile import require_no_listener
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.agent.settings import Settings
    from runrootless.bundle.identity import Identity
    from runrootless.launcher import Words

REAL_IDS = False
IN_OWN_NAMESPACE = True
EXECS_FROM_BUNDLE = True

_ACTIONS = "/proc/sys/kernel/seccomp/actions_avail"
_INFINITY = 0xFFFFFFFFFFFFFFFF
_LIMIT = "RLIMIT_RTTIME"
_STATUS = "/proc/self/status"
_FILTERED = (b"\nNoNewPrivs:\t1\n", b"\nSeccomp:\t2\n")


def obstacle() -> str | None:
    """Return what this kernel lacks, None if it can do all or does not tell: seccomp(2)."""
    try:
        file = os.open(_ACTIONS, os.O_RDONLY)
    except OSError:
        # Hidden, perhaps because this is a container.
        return None
    try:
        if b"user_notif" in os.read(file, 4096).split():
            return None
    finally:
        os.close(file)
    return f"{_ACTIONS} has no user_notif: Linux 5.9 or newer does"


def is_served() -> bool:
    """Return whether an agent of ours answers this process's calls.

    It says that no_new_privs is off where the kernel, in /proc, says that it is on.
    """
    try:
        file = os.open(_STATUS, os.O_RDONLY)
    except OSError:
        return False
    try:
        status = os.read(file, 1 << 14)
    finally:
        os.close(file)
    if not all(line in status for line in _FILTERED):
        return False
    from runrootless.linux.process import has_no_new_privileges

    return not has_no_new_privileges()


def apply(spec: dict[str, Any], directory: str, identity: Identity) -> None:
    """Make a rootless spec one that the agent serves.

    ``directory`` is the container's private directory, ``identity`` whom the first process
    is to be. Raises Error for a seccomp profile with a listener of its own.
    """
    require_no_listener(spec["linux"].get("seccomp") or {})
    apply_process(spec["process"], directory, identity)


def apply_process(process: dict[str, Any], directory: str, identity: Identity) -> None:
    """Give a process (OCI runtime spec, ``process``) its identity and what the filter needs."""
    # The runtime then loads its own filter last, after its setuid and setgroups.
    process["noNewPrivileges"] = True
    limits = [limit for limit in process.get("rlimits") or () if limit.get("type") != _LIMIT]
    if (identity.uid, identity.gid, identity.additional_gids) != (0, 0, ()):
        limits.append({"type": _LIMIT, "soft": number(directory, identity), "hard": _INFINITY})
    process["rlimits"] = limits


def launch(settings: Settings) -> None:
    """Start the agent beside the runtime that this process will become. Raises Error."""
    launch_agent(settings)


def emulate(log: str, log_format: str, debug: bool, words: Words) -> list[str]:
    """Return the words that run a command with root emulated, as it is on the host.

    Raises Error where the host does not allow what it takes.
    """
    from runrootless.engines.notify_host import enter

    return enter(log, log_format, debug, words)


def number(directory: str, identity: Identity) -> int:
    """Return the soft limit of RLIMIT_RTTIME with which a process of the container is somebody.

    ``directory`` is the container's private one. Raises Error.
    """
    from runrootless.emulation.callers.credential_table import CredentialTable
    from runrootless.emulation.callers.credentials import initial
    from runrootless.emulation.stores.entry_file import FullError

    credentials = initial(identity.uid, identity.gid, identity.additional_gids)
    path = f"{directory}/{CREDENTIALS_NAME}"
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            return CredentialTable(fd).encode(credentials)
        finally:
            os.close(fd)
    except OSError as error:
        reason = error.reason if isinstance(error, FullError) else error.strerror
        raise Error(
            f"cannot write who the process is to be into {path}: {reason}; "
            "make room there, or end the container"
        ) from None
