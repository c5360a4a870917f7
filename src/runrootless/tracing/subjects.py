"""What must hold of a process that is to be put under emulation."""

from __future__ import annotations

import os
import time

from runrootless.errors import Error
from runrootless.linux import ptrace
from runrootless.linux.namespaces import owner as owner_of
from runrootless.linux.processes import status_fields
from runrootless.tracing import tasks

# Seconds.
_PATIENCE, _PAUSE = 1.0, 0.002
_LIMIT = b"Max realtime timeout"


def require_traceable() -> None:
    """Raise Error where the host lets nobody trace a process that runs: Yama."""
    if ptrace.scope() == ptrace.NOBODY:
        raise Error(
            "no process of this host may be traced (kernel.yama.ptrace_scope is 3), and nothing "
            "can lift that but a restart: run the container by `runrootless run`"
        )


def require_fit(process: int) -> None:
    """Raise Error unless a process is one of the caller's, as root of one mapped ID."""
    deadline = time.monotonic() + _PATIENCE
    while not _is_fit(process):
        if time.monotonic() > deadline:
            raise Error(
                f"the first thread of process {process} has ended, and it would be what puts "
                "the others under emulation"
            )
        time.sleep(_PAUSE)


def _is_fit(process: int) -> bool:
    """Return False while the first thread has ended and others go on; raise Error as above.

    Another thread may be about to execute a program in place of the first one.
    """
    try:
        if tasks.has_ended(process):
            raise ProcessLookupError
        status = tasks.status(process)
        tracer = int(status_fields(status, b"TracerPid")[0])
        if tracer:
            raise Error(f"process {process} is traced by process {tracer} already")
        for key, own in ((b"Uid", os.geteuid()), (b"Gid", os.getegid())):
            if set(status_fields(status, key)) != {b"%d" % own}:
                raise Error(f"process {process} has other IDs than the caller")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{process}/{name}") as file:
                lines = [line.split() for line in file]
            if len(lines) != 1 or lines[0][0] != "0" or lines[0][2] != "1":
                raise Error(
                    f"process {process} is not in a user namespace in which the caller is root, "
                    "and has no other ID: `unshare --user --map-root-user --mount` makes one"
                )
        _require_own_mounts(process)
        with open(f"/proc/{process}/limits", "rb") as limits:
            for line in limits:
                if line.startswith(_LIMIT) and line[len(_LIMIT) :].split()[1] != b"unlimited":
                    raise Error(
                        f"RLIMIT_RTTIME of process {process} is limited, "
                        "and it is where a process carries who it is"
                    )
    except (FileNotFoundError, ProcessLookupError):
        if _has_threads(process):
            return False
        raise Error(f"there is no process {process}") from None
    except PermissionError:
        raise refusal(process) from None
    return True


def _has_threads(process: int) -> bool:
    try:
        return len(tasks.threads(process)) > 1 or not tasks.has_ended(process)
    except OSError:
        return False


def refusal(process: int) -> Error:
    """Return why a process may not be traced, and what helps."""
    return Error(
        f"process {process} may not be traced: it is another user's, or protects itself, as the "
        "first process of crun does: let crun be called in a user namespace of yours, as podman, "
        "rootlesskit and `unshare --user --map-root-user` do, or take runc"
    )


def descendants(process: int) -> list[int]:
    """Return a process and all that descend from it, parents first."""
    found = [process]
    for one in found:
        try:
            for thread in tasks.threads(one):
                with open(f"/proc/{one}/task/{thread}/children") as file:
                    children = [int(word) for word in file.read().split()]
                found += [child for child in children if not tasks.has_ended(child)]
        except OSError:
            # It has ended.
            continue
    return found


def _require_own_mounts(process: int) -> None:
    """Raise Error unless its mount namespace belongs to its user namespace, so can be joined."""
    directory = f"/proc/{process}/ns"
    mounts = os.open(f"{directory}/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner = owner_of(mounts)
    except PermissionError:
        owner = -1
    finally:
        os.close(mounts)
    try:
        is_own = owner >= 0 and os.fstat(owner).st_ino == os.stat(f"{directory}/user").st_ino
    finally:
        if owner >= 0:
            os.close(owner)
    if not is_own:
        raise Error(
            f"process {process} has no mount namespace of its user namespace's: "
            "`unshare --user --map-root-user --mount` makes both"
        )
