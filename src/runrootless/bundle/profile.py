"""The seccomp profile for a spec that has none; ``seccomp`` is about those that have one."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# With their 32-bit companions, which the kernel of each can run. A call of the x32 ABI ends
# its process with SIGSYS: hardly a kernel has that ABI, and every one here costs a millisecond.
_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "riscv64": ["SCMP_ARCH_RISCV64"],
    "ppc64le": ["SCMP_ARCH_PPC64LE"],
    "s390x": ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
}


def permissive(rules: list[dict[str, Any]], listener_path: str | None) -> dict[str, Any]:
    """Return a ``linux.seccomp`` that applies ``rules`` and allows all else.

    ``listener_path`` is the socket that the runtime sends the listener to (OCI
    config-linux.md, "Seccomp"), None where no rule notifies.
    """
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": _ARCHITECTURES.get(os.uname().machine, []),
        "syscalls": rules,
    }
    if listener_path is not None:
        profile["listenerPath"] = listener_path
    return profile


def install(linux: dict[str, Any], rules: list[dict[str, Any]], listener_path: str | None) -> None:
    """Add ``rules`` to the seccomp profile of a spec's ``linux``, or make it one of them.

    Raises Error for a profile that cannot be combined with them.
    """
    if linux.get("seccomp"):
        from runrootless.bundle.seccomp import merge

        linux["seccomp"] = merge(linux["seccomp"], rules, listener_path)
    else:
        linux["seccomp"] = permissive(rules, listener_path)
