"""The mounts of a spec, as an unprivileged caller can make them."""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISLNK

from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.bundle.host import HostFacts

    Spec = dict[str, Any]
    Mount = dict[str, Any]

_READ_ONLY_BIND = ("rbind", "nosuid", "noexec", "nodev", "ro")


def fit_mounts(spec: Spec, bundle: str, host: HostFacts) -> None:
    """Change ``spec["mounts"]`` in place to what works in a user namespace.

    ``bundle`` is the absolute path that relative sources are relative to,
    ``spec["root"]["path"]`` must be absolute already.
    """
    spec.setdefault("mounts", [])
    bind_kernel_file_systems(spec, host)
    drop_unmapped_owners(spec)
    fit_bind_mounts(spec, bundle, host)


def bind_kernel_file_systems(spec: Spec, host: HostFacts) -> None:
    """Bind the host's /sys, /proc and /dev/mqueue where a new one cannot be mounted.

    Each shows a namespace and can be mounted by the owner of that namespace
    only: user_namespaces(7).  A network namespace is owned by the container's user
    namespace only where the caller has made both.  Raises ``Error`` where the runtime would
    refuse a new one, but not what is bound in its place: see ``_refuse_other_places``.
    """
    types = {namespace.get("type") for namespace in spec["linux"]["namespaces"]}
    sources = {}
    if "network" not in types or "user" in types:
        sources["sysfs"] = "/sys"
    if "pid" not in types:
        sources["proc"] = "/proc"
    if "ipc" not in types:
        sources["mqueue"] = "/dev/mqueue"
    mounts: list[Mount] = []
    for mount in spec["mounts"]:
        source = sources.get(mount.get("type", ""))
        if source is not None and not _is_bind(mount):
            if not host.exists(source):
                continue
            if source != "/dev/mqueue":
                _refuse_other_places(spec["root"]["path"], mount, source, mounts)
            options = [
                option
                for option in _READ_ONLY_BIND
                # These two are not useful read-only, and as safe as for the caller itself.
                if option != "ro" or source == "/sys"
            ]
            mount = {
                "destination": mount.get("destination", source),
                "type": "none",
                "source": source,
                "options": options,
            }
        mounts.append(mount)
    spec["mounts"] = mounts


def _refuse_other_places(root: str, mount: Mount, default: str, before: list[Mount]) -> None:
    """Raise ``Error`` if ``mount``, a sysfs or proc, is to be on anything but a directory.

    Runtimes insist on that for these two, so that no symlink of an image leads them to
    another place.  ``before`` are the mounts that are made before it: what is below one of them
    is not what is in ``root`` there.
    """
    from runrootless.bundle import rootfs

    place = destination(mount, default)
    for other in before:
        if place.startswith(destination(other).rstrip("/") + "/"):
            return
    parent, name = os.path.split(place)
    try:
        found = rootfs.find(root, parent)
        try:
            # Where the directory is missing, the runtime makes it.
            if found.missing or found.name != ".":
                return
            mode = os.lstat(name, dir_fd=found.directory).st_mode
        finally:
            found.close()
    except OSError:
        return
    if not S_ISDIR(mode):
        kind = "a symlink" if S_ISLNK(mode) else "not a directory"
        raise Error(
            f"cannot mount {mount['type']} on {place}: "
            f"that is {kind} in the root file system: make it an ordinary directory"
        )


def destination(mount: Mount, default: str = "") -> str:
    """Return where a mount of a spec is made: an absolute path without detours."""
    # normpath keeps two slashes at the beginning.
    path: str = mount.get("destination", default)
    return os.path.normpath("/" + path.lstrip("/"))


def terminal_group(spec: Spec) -> int | None:
    """Return the group that a spec has the container's devpts mounted with, None if it has none."""
    group = None
    for mount in spec.get("mounts", ()):
        if mount.get("type") == "devpts":
            for option in mount.get("options") or ():
                if option[:4] == "gid=" and option[4:].isdecimal():
                    group = int(option[4:])
    return group


def drop_unmapped_owners(spec: Spec) -> None:
    """Drop the mount options uid= and gid= that name an ID that is not mapped, and ID maps.

    The kernel refuses such IDs.  From devpts they go in any case where ID 0 alone is
    mapped: without them a terminal belongs to who opens it.
    """
    # They are mapped from 0 on, without a gap.
    counts = {
        option: sum(mapping["size"] for mapping in spec["linux"].get(mappings, ()))
        for option, mappings in (("uid=", "uidMappings"), ("gid=", "gidMappings"))
    }
    for mount in spec["mounts"]:
        mount.pop("uidMappings", None)
        mount.pop("gidMappings", None)
        options = mount.get("options")
        if options:
            of_devpts = mount.get("type") == "devpts"
            mount["options"] = [
                option
                for option in options
                if not (
                    _is_unmapped_owner(option, counts, of_devpts) or option in ("idmap", "ridmap")
                )
            ]


def _is_unmapped_owner(option: str, counts: dict[str, int], of_devpts: bool) -> bool:
    count = counts.get(option[:4])
    if count is None or (count > 1 and option[4:].isdecimal() and int(option[4:]) < count):
        return False
    return of_devpts or option[4:] != "0"


def fit_bind_mounts(spec: Spec, bundle: str, host: HostFacts) -> None:
    """Make the sources of bind mounts absolute and keep the flags of their file systems.

    The runtime changes the flags of a bind mount by a remount, and in a user
    namespace that fails unless it keeps nosuid, nodev, noexec and ro where the
    source has them: mount_namespaces(7).
    """
    for mount in spec["mounts"]:
        if not _is_bind(mount):
            continue
        source = mount["source"] = os.path.join(bundle, mount.get("source", ""))
        options = mount.get("options", [])
        locked = host.locked_mount_options(source)
        # At the end, because a later option overrides an earlier one.
        mount["options"] = options + [option for option in locked if option not in options]


def _is_bind(mount: Mount) -> bool:
    options = mount.get("options", ())
    return mount.get("type") == "bind" or "bind" in options or "rbind" in options
