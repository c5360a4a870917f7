"""From the spec of a bundle to one that its unprivileged caller can run.

One function a concern, each changing in place the spec it is given (which was
read from a file a moment ago and is nobody else's) and asking about the machine
nothing but the ``HostFacts``.
"""

from __future__ import annotations

import os

from runrootless.bundle.devices import take_devices
from runrootless.bundle.mounts import fit_mounts
from runrootless.bundle.process import fit_process, set_home, take_user
from runrootless.errors import Error, suggested_path

# PATH_MAX of <linux/limits.h>, with the null byte.
_PATH_MAX = 4096

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.bundle.host import HostFacts
    from runrootless.bundle.identity import Identity

    Spec = dict[str, Any]

# Our own property in the derived config.json.  Runtimes must ignore properties
# they do not know (OCI config.md, "Extensibility"); exec, state and list read it.
MEMORY = "runrootless"


def transform(
    spec: Spec,
    bundle: str,
    host: HostFacts,
    systemd_cgroup: bool,
    real_ids: bool = False,
    own_network: bool = False,
    emulates_devices: bool = False,
    user_namespace: str = "",
) -> Identity:
    """Make ``spec`` rootless in place and return who its process wants to be.

    ``spec`` is as ``bundle.spec.load`` returns it from the directory ``bundle``;
    ``systemd_cgroup`` says whether the caller hands its cgroups to systemd, ``real_ids``
    whether all IDs are mapped that the caller has, and not only one to be root, and
    ``own_network`` whether somebody connects a new network namespace, and ``emulates_devices``
    whether somebody makes what is in ``devices`` of our own property then.
    ``user_namespace`` is the path of the one that the container is to join, if there is one.
    Raises ``Error`` if the root file system is missing or an ID cannot be.
    """
    bundle = os.path.abspath(bundle)
    locate_root(spec, bundle)
    spec.setdefault("linux", {})
    map_ids(spec, host, real_ids, user_namespace)
    if not own_network:
        drop_network_namespace(spec)
    fit_mounts(spec, bundle, host)
    if not systemd_cgroup:
        drop_cgroups(spec, host)
    devices = take_devices(spec, host, emulates_devices)
    drop_network_sysctls(spec)
    spec["linux"].pop("intelRdt", None)
    process = spec["process"]
    user = process.get("user", {})
    fit_process(process, host)
    identity = take_user(process)
    home_added = set_home(process, identity, spec["root"]["path"])
    spec[MEMORY] = {"bundle": bundle, "user": user, "homeAdded": home_added}
    if devices:
        spec[MEMORY]["devices"] = devices
    return identity


def locate_root(spec: Spec, bundle: str) -> None:
    """Make ``root.path`` absolute; raise ``Error`` if it is no directory to enter.

    It gets there without symlinks, on which runc insists.
    """
    path = spec["root"]["path"] = os.path.realpath(os.path.join(bundle, spec["root"]["path"]))
    if not os.path.isdir(path):
        if len(os.fsencode(path)) >= _PATH_MAX:
            raise Error(
                f"the root file system {path} has a path of over {_PATH_MAX - 1} bytes: "
                "move the bundle to a shorter one"
            )
        raise Error(
            f"the root file system {path} is missing: "
            f"unpack an image there, or correct root.path{suggested_path(path)}"
        )
    if not os.access(path, os.X_OK):
        raise Error(f"the root file system {path} is closed to you: it must be your own")


def map_ids(spec: Spec, host: HostFacts, real_ids: bool, joined: str = "") -> None:
    """Put the container in a user namespace in which the caller is root, a new one or ``joined``.

    It is the one mapping that user_namespaces(7) allows everybody. With ``real_ids`` the
    caller's subordinate IDs, if there are any, follow from 1 on. A caller that is in such a
    namespace already and asks for no other stays there: what podman has made for the
    container, as its network namespace, belongs to that one, and only from there can it be
    configured.
    """
    linux = spec["linux"]
    given = linux.get("namespaces", ())
    namespaces = [namespace for namespace in given if namespace.get("type") != "user"]
    if not joined and len(namespaces) == len(given) and host.owns_user_namespace():
        linux["namespaces"] = namespaces
        linux.pop("uidMappings", None)
        linux.pop("gidMappings", None)
        return
    # runc 1.1 wants to know the mappings of one that is joined, too.
    namespaces.append({"type": "user", "path": joined} if joined else {"type": "user"})
    linux["namespaces"] = namespaces
    uids, gids = host.subordinate_ids() if real_ids else ([], [])
    linux["uidMappings"] = _mappings(host.uid, uids)
    linux["gidMappings"] = _mappings(host.gid, gids)


def _mappings(own: int, ranges: list[tuple[int, int]]) -> list[dict[str, int]]:
    mappings = []
    inside = 0
    for first, count in [(own, 1), *ranges]:
        mappings.append({"containerID": inside, "hostID": first, "size": count})
        inside += count
    return mappings


def drop_network_namespace(spec: Spec) -> None:
    """Leave the container in the caller's network unless a namespace is named.

    In a new network namespace there would be nothing but an unconfigured loopback.
    But in the caller's own user namespace it was asked for by a program that knows
    what it does without: ``podman run --network none``.
    """
    if not has_new_user_namespace(spec):
        return
    spec["linux"]["namespaces"] = [
        namespace
        for namespace in spec["linux"]["namespaces"]
        if namespace.get("type") != "network" or namespace.get("path")
    ]


def has_new_user_namespace(spec: Spec) -> bool:
    """Return whether the container gets a user namespace of its own; see ``map_ids``."""
    return any(namespace.get("type") == "user" for namespace in spec["linux"]["namespaces"])


def drop_cgroups(spec: Spec, host: HostFacts) -> None:
    """Drop cgroup settings that the caller has no cgroup for."""
    linux = spec["linux"]
    if ("resources" in linux or "cgroupsPath" in linux) and not host.own_cgroup_writable():
        linux.pop("resources", None)
        linux.pop("cgroupsPath", None)


def drop_network_sysctls(spec: Spec) -> None:
    """Drop the ``net.`` sysctls: they would be the host's, which the caller cannot set."""
    linux = spec["linux"]
    if "sysctl" in linux and not any(
        namespace.get("type") == "network" for namespace in linux["namespaces"]
    ):
        linux["sysctl"] = {
            name: value
            for name, value in linux["sysctl"].items()
            if not name.replace("/", ".").startswith("net.")
        }
