"""What must hold of a process that is to be put under emulation."""

from __future__ import annotations

import os
import time
from fcntl import ioctl

from runrootless.errors import Error

# <linux/nsfs.h>: the user namespace that a namespace belongs to, see ioctl_ns(2).
_NS_GET_USERNS = 0xB701
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_NOBODY = "3"
# Seconds.
_PATIENCE, _PAUSE = 1.0, 0.002
_LIMIT = b"Max realtime timeout"


def require_traceable() -> None:
    """Raise Error where the host lets nobody trace a process that runs: Yama."""
    try:
        with open(_YAMA) as file:
            scope = file.read().strip()
    except OSError:
        return
    if scope == _NOBODY:
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
        status = _status(process)
        if status["State"][0] in "ZX":
            raise ProcessLookupError
        if status["TracerPid"][0] != "0":
            raise Error(f"process {process} is traced by process {status['TracerPid'][0]} already")
        own = (str(os.geteuid()), str(os.getegid()))
        if any(set(status[name][:4]) != {number} for name, number in zip(("Uid", "Gid"), own)):
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
        return len(os.listdir(f"/proc/{process}/task")) > 1 or not has_ended(process)
    except OSError:
        return False


def refusal(process: int) -> Error:
    """Return why a process may not be traced, and what helps."""
    return Error(
        f"process {process} may not be traced: it is another user's, or protects itself, as the "
        "first process of crun does: let crun be called in a user namespace of yours, as podman, "
        "rootlesskit and `unshare --user --map-root-user` do, or take runc"
    )


def has_ended(process: int) -> bool:
    """Return whether a process is gone, or waits for nothing but its parent."""
    try:
        return _status(process)["State"][0] in "ZX"
    except OSError:
        return True


def descendants(process: int) -> list[int]:
    """Return a process and all that descend from it, parents first."""
    found = [process]
    for one in found:
        try:
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/children") as file:
                    children = [int(word) for word in file.read().split()]
                found += [child for child in children if not has_ended(child)]
        except OSError:
            # It has ended.
            continue
    return found


def _require_own_mounts(process: int) -> None:
    """Raise Error unless its mount namespace belongs to its user namespace, so can be joined."""
    directory = f"/proc/{process}/ns"
    mounts = os.open(f"{directory}/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner = ioctl(mounts, _NS_GET_USERNS)
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


def _status(process: int) -> dict[str, list[str]]:
    with open(f"/proc/{process}/status") as file:
        return {name: value.split() for name, _, value in (line.partition(":") for line in file)}
