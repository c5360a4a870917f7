"""``linux.devices``: which the runtime binds from the host, and which are to be emulated.

In a user namespace mknod(2) fails, so a runtime binds the host's device of the same name there,
with the host's owner and mode, and looks at nothing else that a bundle says of it. An agent
shows the bundle's owner and mode instead, and makes those that the host has not.
"""

from __future__ import annotations

import os
from stat import S_IFBLK, S_IFCHR, S_IFIFO, S_ISCHR, S_ISSOCK

from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.bundle.host import HostFacts

    Spec = dict[str, Any]
    Device = dict[str, Any]

_TYPES = {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}
_DEFAULT_MODE = 0o666
_PERMISSIONS = 0o7777
_MAXIMUM_ID = 0xFFFFFFFF
# The runtimes have a link there in any case.
_PTMX = "/dev/ptmx"
# The devices that they bind, unless the bundle names them.
_DEFAULTS = [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")]
_CONSOLE = "/dev/console"


def take_devices(spec: Spec, host: HostFacts, emulated: bool) -> list[Device]:
    """Leave in ``spec`` the devices that the host has under the same name; return what to emulate.

    Each is an object of ``path``, ``mode`` with the file type and ``device`` as in struct stat,
    ``uid``, ``gid``, ``replaces``, which tells that it goes before one of the runtime's own,
    and ``bound``, which tells that the runtime binds the host's device there.
    Without ``emulated`` there are none, and what the host has not is dropped. Raises Error for a
    device that no runtime could make.
    """
    given = spec["linux"].get("devices")
    if not given:
        return []
    bound: list[Device] = []
    nodes: list[Device] = []
    paths = set()
    for device in given:
        path = device.get("path", "")
        full = f"/{path.lstrip('/')}"
        place = os.path.normpath(full)
        kind = device.get("type", "")
        if kind not in _TYPES:
            raise Error(
                f'linux.devices: invalid device type "{kind}" of {path}: it is c, u, b or p'
            )
        # Without a path it is there for its cgroup rule. Of two of one name the first is made.
        if not path or place == _PTMX or place in paths:
            continue
        paths.add(place)
        on_host = path.startswith("/") and ".." not in path and _is_host_device(device, host)
        is_bound = on_host and (kind != "p" or not emulated)
        if is_bound:
            bound.append(device)
        if emulated:
            nodes.append(
                {
                    "path": full,
                    "mode": _TYPES[kind] | device.get("fileMode", _DEFAULT_MODE) & _PERMISSIONS,
                    "device": 0 if kind == "p" else _number(path, device),
                    "uid": _id(path, device, "uid"),
                    "gid": _id(path, device, "gid"),
                    "replaces": place in _DEFAULTS and not is_bound,
                    "bound": is_bound,
                }
            )
    spec["linux"]["devices"] = bound
    return nodes


def bind_devices(spec: Spec) -> None:
    """Have mounts bind the devices that a runtime would bind by itself.

    crun, which is root in the namespace that it is started in, prepares them in a mount namespace
    and comes back from it with another working directory, which it then takes for the bundle.
    Where a symlink is in the place it binds a device over that, and a mount where it leads to: such
    devices stay.
    """
    devices = spec["linux"].get("devices", [])
    kept = [device for device in devices if _is_over_link(spec, device["path"])]
    spec["mounts"] += [
        {
            "destination": device["path"],
            "type": "bind",
            "source": device["path"],
            "options": ["bind", "private"],
        }
        for device in devices
        if device not in kept
    ]
    spec["linux"]["devices"] = kept


def require_places(spec: Spec) -> None:
    """Raise Error where a runtime could not bind its devices over what is in the root file system.

    To bind one there it opens what has its name, and what stands for a device node, or a
    socket, cannot be opened: ENXIO of open(2).
    """
    if _is_covered(spec, _CONSOLE):
        return
    terminal = [_CONSOLE] if spec["process"].get("terminal") else []
    root = spec["root"]["path"]
    for place in (*_DEFAULTS, *terminal):
        path = f"{root}{place}"
        try:
            found = os.lstat(path)
        except OSError:
            continue
        if S_ISSOCK(found.st_mode) or (S_ISCHR(found.st_mode) and not found.st_rdev):
            raise Error(
                f"the bundle mounts nothing at /dev, and {path}, which stands for a device, is in "
                "the way of the host's: add that mount (type tmpfs, as `runrootless spec` has it)"
            )


def _is_over_link(spec: Spec, path: str) -> bool:
    """Return whether a symlink is in the place of a path, in the root file system itself."""
    place = os.path.normpath(f"/{path.lstrip('/')}")
    return not _is_covered(spec, place) and os.path.islink(f"{spec['root']['path']}{place}")


def _is_covered(spec: Spec, place: str) -> bool:
    """Return whether a spec mounts something on a directory that a place is below."""
    found = (os.path.normpath(one.get("destination", "")) for one in spec["mounts"])
    # normpath() keeps two slashes, as POSIX has it, and the one of the root.
    directories = (f"/{one.strip('/')}".rstrip("/") for one in found if one.startswith("/"))
    return any(place.startswith(f"{directory}/") for directory in directories)


def _is_host_device(device: Device, host: HostFacts) -> bool:
    found = host.device(device["path"])
    if found is None:
        return False
    kind = device["type"]
    if kind == "u":
        kind = "c"
    if kind == "p":
        return found[0] == "p"
    return found == (kind, device.get("major", 0), device.get("minor", 0))


def _number(path: str, device: Device) -> int:
    """Return st_rdev as mknod(2) makes it: 12 bits of the major number, 20 of the minor one."""
    major, minor = device.get("major", 0), device.get("minor", 0)
    if major == -1 or minor == -1:
        raise Error(f"linux.devices: {path} has a wildcard for a number: it stands for no device")
    return os.makedev(major & 0xFFF, minor & 0xFFFFF)


def _id(path: str, device: Device, name: str) -> int:
    number = int(device.get(name, 0))
    if not 0 <= number <= _MAXIMUM_ID:
        raise Error(f"linux.devices: {path} has the {name} {number}: it has 32 bits")
    # chown(2) leaves it then.
    return 0 if number == _MAXIMUM_ID else number
