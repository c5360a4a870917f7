"""What a bundle asks for and the derived bundle lacks, in words.

Found by comparing the two, so that nothing which the transformation drops is
forgotten here. Used only for ``--debug``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Spec = dict[str, Any]

# Those that ``bundle.mounts`` binds where a new one cannot be mounted.
_KERNEL_FILE_SYSTEMS = ("sysfs", "proc", "mqueue")
_NO_CGROUP = "you have no cgroup of your own to set it in"
_NO_DEVICE = "the host has no such device, and a user cannot make one"
_HOST_NETWORK = "the container is in the host's network, which a user cannot set up"
_NOT_FOR_USERS = "it takes real root"


def differences(before: Spec, after: Spec) -> list[str]:
    """Return one line for each thing in ``before`` that is not in ``after``, with the reason.

    Both are specs as ``bundle.spec.load`` returns them: the user's, and the derived one.
    """
    lines = [
        *_of_linux(before.get("linux", {}), after["linux"]),
        *_of_devices(before.get("linux", {}), after),
        *_of_mounts(before.get("mounts", []), after.get("mounts", [])),
        *_of_process(before["process"], after["process"]),
    ]
    return [f"dropped {line}" for line in lines]


def _of_linux(before: Spec, after: Spec) -> Iterator[str]:
    for name in before.get("resources", {}):
        if name not in after.get("resources", {}):
            yield f"linux.resources.{name}: {_NO_CGROUP}"
    if "cgroupsPath" in before and "cgroupsPath" not in after:
        yield f"linux.cgroupsPath {before['cgroupsPath']}: {_NO_CGROUP}"
    for name in before.get("sysctl", {}):
        if name not in after.get("sysctl", {}):
            yield f"linux.sysctl {name}: {_HOST_NETWORK}"
    if "intelRdt" in before and "intelRdt" not in after:
        yield f"linux.intelRdt: {_NOT_FOR_USERS}"
    types = [namespace.get("type") for namespace in after["namespaces"]]
    has_path = any(one.get("type") == "user" and one.get("path") for one in after["namespaces"])
    for namespace in before.get("namespaces", ()):
        if namespace.get("type") not in types:
            yield (
                f"linux.namespaces {namespace.get('type')}: "
                "a new one would have no connection; the host's is used"
            )
        elif namespace.get("type") == "user" and namespace.get("path") and not has_path:
            yield f"linux.namespaces user {namespace['path']}: a new one is made"
    for name in ("uidMappings", "gidMappings"):
        if before.get(name) and before[name] != after.get(name):
            yield f"linux.{name}: a user can map one ID; all others are emulated"


def _of_devices(before: Spec, after: Spec) -> Iterator[str]:
    kept = {device.get("path") for device in after["linux"].get("devices", ())}
    # Some runtimes get them as mounts.
    kept |= {
        one.get("source") for one in after["mounts"] if one.get("source") == one.get("destination")
    }
    # Made by an agent, of which the transformation keeps this account.
    made = {device["path"] for device in after.get("runrootless", {}).get("devices", ())}
    for device in before.get("devices", ()):
        path = device.get("path", "")
        if path and path not in kept and f"/{path.lstrip('/')}" not in made:
            yield f"linux.devices {path}: {_NO_DEVICE}"


def _of_mounts(before: list[Spec], after: list[Spec]) -> Iterator[str]:
    # What has been added is behind.
    kept = {mount.get("destination"): mount for mount in reversed(after)}
    for mount in before:
        place = mount.get("destination")
        now = kept.get(place)
        if now is None:
            yield f"the mount {place}: the host has none to show in its place"
        elif mount.get("type") in _KERNEL_FILE_SYSTEMS and now.get("type") != mount["type"]:
            yield f"the mount {place} of a new {mount['type']}: the host's is shown there"
        else:
            for option in mount.get("options", ()):
                if option not in now.get("options", ()):
                    yield f"the mount option {option} of {place}: the ID is not mapped"


def _of_process(before: Spec, after: Spec) -> Iterator[str]:
    limits = {limit.get("type"): limit for limit in after.get("rlimits", ())}
    for limit in before.get("rlimits", ()):
        name = limit.get("type")
        now = limits.get(name)
        if name == "RLIMIT_RTTIME":
            yield f"process.rlimits {name}: the identity of processes is kept there"
        elif now is not None and now != limit:
            yield (
                f"process.rlimits {name} of {limit.get('soft')}:{limit.get('hard')}: "
                f"your own hard limit allows {now.get('soft')}:{now.get('hard')}"
            )
    if "oomScoreAdj" in before and "oomScoreAdj" not in after:
        yield f"process.oomScoreAdj {before['oomScoreAdj']}: it takes real root to lower yours"
