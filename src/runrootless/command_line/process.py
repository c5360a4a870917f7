"""The further process that the flags of ``exec`` describe, or a file that they name."""

from __future__ import annotations

from runrootless.bundle.accounts import resolve
from runrootless.bundle.host import HostFacts
from runrootless.bundle.identity import Identity
from runrootless.bundle.process import (
    clamp_rlimits,
    drop_oom_score_adj,
    take_user,
    use_default_capabilities,
)
from runrootless.bundle.spec import load_process
from runrootless.bundle.transform import MEMORY
from runrootless.command_line import runc
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.command_line.runc import Parsed

    Process = dict[str, Any]
    Spec = dict[str, Any]


def process_from_file(path: str) -> tuple[Process, Identity]:
    """Return the process in a file (``exec --process``), and who it wants to be. Raises Error."""
    process = load_process(path)
    if process.get("capabilities") is not None:
        # Without any it gets those of the container.
        use_default_capabilities(process)
    host = HostFacts()
    clamp_rlimits(process, host)
    drop_oom_score_adj(process, host)
    return process, take_user(process)


def process_from_flags(
    spec: Spec, parsed: Parsed, arguments: list[str]
) -> tuple[Process, Identity]:
    """Return the container's own process, changed by the flags as runc's exec.go does.

    ``spec`` is the derived one of the container.  Also returns who it wants to be.  Raises Error.
    """
    process = spec["process"]
    process["args"] = arguments
    environment = process.get("env", [])
    if spec[MEMORY]["homeAdded"]:
        # It was the home of another user.
        environment = [entry for entry in environment if not entry.startswith("HOME=")]
    process["env"] = environment + parsed.get_all("env")
    for flag, name in (
        ("cwd", "cwd"),
        ("apparmor", "apparmorProfile"),
        ("process-label", "selinuxLabel"),
    ):
        if parsed.get(flag):
            process[name] = parsed.get(flag)
    process["terminal"] = parsed.is_on("tty")
    added = parsed.get_all("cap")
    if added:
        sets = process["capabilities"]
        for name in ("bounding", "effective", "permitted"):
            sets[name] = sets.get(name, []) + added
    return process, _wanted_identity(spec, parsed)


def _wanted_identity(spec: Spec, parsed: Parsed) -> Identity:
    identity = Identity.of_user(spec[MEMORY]["user"])
    user = parsed.get("user")
    if user:
        identity = resolve(spec["root"]["path"], user, identity)
    gids = [runc.number(gid) or 0 for gid in parsed.get_all("additional-gids")]
    if gids:
        identity = Identity(identity.uid, identity.gid, (*identity.additional_gids, *gids))
        if not identity.is_valid():
            raise Error("--additional-gids takes numbers from 0 to 4294967294")
    return identity
