"""System calls that fail in a container: an addition to a seccomp profile."""

from __future__ import annotations

import os

from runrootless.bundle.profile import PERMISSIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Profile = dict[str, Any]

# With their 32-bit companions, which the kernel of each can run.
_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "riscv64": ["SCMP_ARCH_RISCV64"],
    "ppc64le": ["SCMP_ARCH_PPC64LE"],
    "s390x": ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
}


def refuse(profile: Profile | None, refusals: dict[int, tuple[str, ...]]) -> Profile:
    """Return a ``linux.seccomp`` in which some calls fail, else as ``profile``.

    ``refusals`` maps an errno to the names of the calls that fail with it.  What the profile
    does not allow anyway stays as it says, and ``profile`` itself is not changed.
    """
    if not profile:
        profile = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": _ARCHITECTURES.get(os.uname().machine, []),
        }
    rules = profile.get("syscalls") or []
    refused = {name for names in refusals.values() for name in names}
    if profile.get("defaultAction") not in PERMISSIVE:
        # By default it is denied already, and another rule would be without effect.
        refused &= {
            name
            for rule in rules
            if rule.get("action") in PERMISSIVE
            for name in rule.get("names", ())
        }
    kept = []
    for rule in rules:
        if rule.get("action") not in PERMISSIVE:
            kept.append(rule)
            # A condition of theirs must not meet a rule of ours: which of the two libseccomp
            # then goes by depends on how it sorts them.
            refused -= set(rule.get("names", ()))
    for rule in rules:
        if rule.get("action") in PERMISSIVE:
            names = [name for name in rule.get("names", ()) if name not in refused]
            if names:
                kept.append({**rule, "names": names})
    for number, wanted in refusals.items():
        ours = [name for name in wanted if name in refused]
        if ours:
            kept.append({"names": ours, "action": "SCMP_ACT_ERRNO", "errnoRet": number})
    return {**profile, "syscalls": kept}
