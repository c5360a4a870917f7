"""The seccomp profile of a bundle, which stays as it is: our own filter is stacked on it.

What the profile denies is denied, whatever that filter says: seccomp(2), "the most recently
installed filter is executed first", and of all answers the most restrictive one counts. Of
two that are errors it is that of the later filter.
"""

from __future__ import annotations

from errno import EPERM

from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Profile = dict[str, Any]

PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")
"""The actions that let a call through."""

_NOTIFY = "SCMP_ACT_NOTIFY"
_SECCOMP = "seccomp"
# SECCOMP_RET_*, <linux/seccomp.h>.
_KILL_PROCESS, _KILL_THREAD, _TRAP, _ERRNO = 0x80000000, 0, 0x00030000, 0x00050000
_RETURNS = {
    "SCMP_ACT_KILL": _KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": _KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
    "SCMP_ACT_TRAP": _TRAP,
}


def require_no_listener(profile: Profile) -> None:
    """Raise Error for a profile with a listener: a process can have one only, seccomp(2)."""
    rules = profile.get("syscalls") or []
    if profile.get("defaultAction") == _NOTIFY or any(
        rule.get("action") == _NOTIFY for rule in rules
    ):
        raise Error(
            "linux.seccomp: SCMP_ACT_NOTIFY cannot be used, because root is emulated with it and "
            "a process can have one listener only: remove it from the profile"
        )


def permit_seccomp(profile: Profile) -> int | None:
    """Let a profile allow seccomp(2), which the launcher calls; return its own answer to that.

    That is a SECCOMP_RET_* with its data, for our filter to give, None where the profile allows
    the call or has conditions for it and is not changed.
    """
    answer = _denial(profile, _SECCOMP)
    if answer is None:
        return None
    kept = []
    for rule in profile.get("syscalls") or ():
        names = [name for name in rule.get("names", ()) if name != _SECCOMP]
        if names:
            kept.append({**rule, "names": names})
    if profile.get("defaultAction") not in PERMISSIVE:
        kept.append({"names": [_SECCOMP], "action": "SCMP_ACT_ALLOW"})
    profile["syscalls"] = kept
    return answer


def denied(profile: Profile, names: Iterable[str]) -> list[str]:
    """Return those of system calls that a profile denies whatever their arguments."""
    return [name for name in names if _denial(profile, name) is not None]


def _denial(profile: Profile, name: str) -> int | None:
    """Return a profile's answer to a call, None where it may be allowed or is traced."""
    about = [rule for rule in profile.get("syscalls") or () if name in rule.get("names", ())]
    if any(rule.get("args") for rule in about):
        return None
    # For libseccomp the first one without conditions is the only one.
    first = about[0] if about else {}
    action = first.get("action", profile.get("defaultAction"))
    if action == "SCMP_ACT_ERRNO":
        default: int = EPERM if about else profile.get("defaultErrnoRet", EPERM)
        number: int = first.get("errnoRet", default)
        return _ERRNO | number & 0xFFFF
    return _RETURNS.get(str(action))
