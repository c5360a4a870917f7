"""The process of a spec, and of ``exec``, as an unprivileged caller can start it."""

from __future__ import annotations

from runrootless.bundle.identity import Identity
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.bundle.host import HostFacts

    Process = dict[str, Any]

# What `runc spec` writes: nobody's decision, and too little for a package manager.
_UNDECIDED_CAPABILITIES = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
"""Docker's default set (moby, oci/caps/defaults.go).

They are worth something in the container's user namespace only.
"""


def fit_process(process: Process, host: HostFacts) -> None:
    """Change ``process`` in place to what ``host``'s user may do, but for its user."""
    use_default_capabilities(process)
    clamp_rlimits(process, host)
    drop_oom_score_adj(process, host)


def take_user(process: Process) -> Identity:
    """Make ``process`` run as 0:0 and return who it was to run as.

    The umask stays.  Raises ``Error`` for an ID that cannot be.
    """
    user = process.get("user", {})
    identity = Identity.of_user(user)
    if not identity.is_valid():
        raise Error(
            "process.user.uid, gid and additionalGids must be from 0 to 4294967294, "
            f"not {identity.uid}, {identity.gid} and {list(identity.additional_gids)}"
        )
    process["user"] = {"uid": 0, "gid": 0}
    if "umask" in user:
        process["user"]["umask"] = user["umask"]
    return identity


def use_default_capabilities(process: Process) -> None:
    """Give ``process`` Docker's default capabilities if the spec's author chose none.

    Neither inheritable nor ambient: those are for programs that a non-zero real
    user ID executes, and the kernel never sees one here.
    """
    sets = process.get("capabilities")
    if sets is not None and (
        set(sets.get("bounding", ())) != _UNDECIDED_CAPABILITIES
        or any(names and set(names) != _UNDECIDED_CAPABILITIES for names in sets.values())
    ):
        return
    process["capabilities"] = {
        name: list(DEFAULT_CAPABILITIES) for name in ("bounding", "effective", "permitted")
    }


def clamp_rlimits(process: Process, host: HostFacts) -> None:
    """Lower the limits of ``process`` to the caller's hard limits, see getrlimit(2).

    RLIMIT_RTTIME goes: the emulation keeps the identity of a process in it.
    """
    rlimits = process.get("rlimits")
    if not rlimits:
        return
    kept = []
    for rlimit in rlimits:
        name = rlimit.get("type")
        if name == "RLIMIT_RTTIME":
            continue
        highest = host.hard_limit(name)
        if highest is not None:
            for key in ("hard", "soft"):
                if rlimit.get(key, 0) > highest:
                    rlimit[key] = highest
        kept.append(rlimit)
    process["rlimits"] = kept


def drop_oom_score_adj(process: Process, host: HostFacts) -> None:
    """Drop a ``oomScoreAdj`` that needs CAP_SYS_RESOURCE: one below the caller's own."""
    wanted = process.get("oomScoreAdj")
    if wanted is not None and wanted < host.oom_score_adj():
        del process["oomScoreAdj"]


def set_home(process: Process, identity: Identity, root: str) -> bool:
    """Set HOME as the runtime would for ``identity``; return whether it was needed.

    Without HOME in ``process.env`` a runtime takes the home of the user it starts
    the process as, which is always 0 here.  ``root`` is the root file system.
    """
    environment = process.setdefault("env", [])
    if identity.uid == 0 or any(
        entry.startswith("HOME=") and entry != "HOME=" for entry in environment
    ):
        return False
    from runrootless.bundle.accounts import home

    process["env"] = [entry for entry in environment if entry != "HOME="]
    process["env"].append("HOME=" + home(root, identity.uid))
    return True
