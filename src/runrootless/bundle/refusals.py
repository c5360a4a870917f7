"""System calls that fail in a container: an addition to a seccomp profile."""

from __future__ import annotations

from runrootless.bundle.profile import permissive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Profile = dict[str, Any]

_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")


def refuse(profile: Profile | None, refusals: dict[int, tuple[str, ...]]) -> Profile:
    """Return a ``linux.seccomp`` in which some calls fail, else as ``profile``.

    ``refusals`` maps an errno to the names of the calls that fail with it.  What the profile
    does not allow anyway stays as it says, and ``profile`` itself is not changed.
    """
    if not profile:
        profile = permissive([], "")
        del profile["listenerPath"]
    rules = profile.get("syscalls") or []
    refused = {name for names in refusals.values() for name in names}
    if profile.get("defaultAction") not in _PERMISSIVE:
        # By default it is denied already, and another rule would be without effect.
        refused &= {
            name
            for rule in rules
            if rule.get("action") in _PERMISSIVE
            for name in rule.get("names", ())
        }
    kept = []
    for rule in rules:
        if rule.get("action") not in _PERMISSIVE:
            kept.append(rule)
            # A condition of theirs must not meet a rule of ours: see bundle.seccomp.
            refused -= set(rule.get("names", ()))
    for rule in rules:
        if rule.get("action") in _PERMISSIVE:
            names = [name for name in rule.get("names", ()) if name not in refused]
            if names:
                kept.append({**rule, "names": names})
    for number, wanted in refusals.items():
        ours = [name for name in wanted if name in refused]
        if ours:
            kept.append({"names": ours, "action": "SCMP_ACT_ERRNO", "errnoRet": number})
    return {**profile, "syscalls": kept}
