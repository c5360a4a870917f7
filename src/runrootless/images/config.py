"""From the configuration of an image to that of a bundle: conversion.md of the OCI image spec.

What the image does not say is as `runc spec` has it, but for capabilities, which are Docker's
default set, and a root file system that can be written to. Nothing in it is rootless.
"""

from __future__ import annotations

from runrootless.bundle import accounts
from runrootless.bundle.process import DEFAULT_CAPABILITIES
from runrootless.errors import Error
from runrootless.images import image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PREFIX = "org.opencontainers.image."
# Of the image's configuration, and the ends of the annotations that they become.
_FIELDS = (
    ("os", "os"),
    ("architecture", "architecture"),
    ("variant", "variant"),
    ("os.version", "os.version"),
    ("os.features", "os.features"),
    ("author", "author"),
    ("created", "created"),
)
_UNSAFE = ("org.runrootless.", "run.oci.", "org.systemd.property.")
"""What begins so tells a runtime what to do on the host: not an image's to say."""

_ID_LIMIT = 0xFFFFFFFF

_MOUNTS = (
    ("/proc", "proc", "proc", None),
    ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
    ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid noexec nodev relatime ro"),
)
_MASKED = [
    "acpi",
    "asound",
    "kcore",
    "keys",
    "latency_stats",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "scsi",
]
_READ_ONLY = ["bus", "fs", "irq", "sys", "sysrq-trigger"]
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount")


class Conversion:
    """What has become of an image's configuration.

    ``spec`` is the config.json; ``notes`` are lines about what is left out of it; ``volumes``
    are the paths that are to have mounts of their own.
    """

    def __init__(self, spec: dict[str, Any], notes: list[str], volumes: list[str]) -> None:
        self.spec = spec
        self.notes = notes
        self.volumes = volumes


def convert(
    config: bytes,
    rootfs: str,
    source: str,
    command: Sequence[str] = (),
    terminal: bool = False,
    user: str = "",
) -> Conversion:
    """Return what becomes of an image's configuration, of the root file system ``rootfs``.

    ``command`` stands in the place of the image's Cmd, and ``user`` of its User, if they are not
    empty. Raises Error.
    """
    what = f"the configuration of {source}"
    about = image.parse_json(config, what)
    own = image.require_object(about.get("config") or {}, what)
    entrypoint = _strings(own, "Entrypoint", what)
    arguments = [*entrypoint, *(command or _strings(own, "Cmd", what))]
    environment = _strings(own, "Env", what)
    if not any(entry.startswith("PATH=") for entry in environment):
        environment.append(_PATH)
    if terminal and not any(entry.startswith("TERM=") for entry in environment):
        environment.append("TERM=xterm")
    cwd = _string(own, "WorkingDir", what) or "/"
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": terminal,
            "user": _user(user or _string(own, "User", what), rootfs, bool(user)),
            "args": arguments or ["sh"],
            "env": environment,
            "cwd": cwd if cwd.startswith("/") else f"/{cwd}",
            "capabilities": {
                name: list(DEFAULT_CAPABILITIES) for name in ("bounding", "effective", "permitted")
            },
            "noNewPrivileges": False,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "runrootless",
        "mounts": [_mount(*mount) for mount in _MOUNTS],
        "annotations": {},
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": name} for name in _NAMESPACES],
            "maskedPaths": [*(f"/proc/{name}" for name in _MASKED), "/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in _READ_ONLY],
        },
    }
    notes: list[str] = []
    spec["annotations"] = _annotations(about, own, what, notes)
    volumes = sorted(image.require_object(own.get("Volumes") or {}, what))
    return Conversion(spec, notes, volumes)


def _annotations(
    about: dict[str, Any], own: dict[str, Any], what: str, notes: list[str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for member, name in _FIELDS:
        value = about.get(member)
        if isinstance(value, list):
            value = ",".join(map(str, value))
        if value:
            found[_PREFIX + name] = str(value)
    signal = _string(own, "StopSignal", what)
    if signal:
        found[f"{_PREFIX}stopSignal"] = signal
    ports = image.require_object(own.get("ExposedPorts") or {}, what)
    if ports:
        found[f"{_PREFIX}exposedPorts"] = ",".join(sorted(ports))
    for name, value in image.require_object(own.get("Labels") or {}, what).items():
        if name.startswith(_UNSAFE):
            notes.append(f"the label {name} is left out: it is not an image's to say")
        elif name:
            found[name] = str(value)
    return found


def _mount(destination: str, kind: str, source: str, options: str | None) -> dict[str, Any]:
    mount: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    if options:
        mount["options"] = options.split()
    return mount


def _user(wanted: str, rootfs: str, is_asked_for: bool) -> dict[str, Any]:
    """Return what ``process.user`` is of ``user[:group]``, each a number or a name.

    It is the image's unless it ``is_asked_for``. Raises Error.
    """
    user, colon, group = wanted.partition(":")
    uid = gid = 0
    gids: list[int] = []
    if user:
        entry = next(
            (
                fields
                for fields in accounts.records(rootfs, "/etc/passwd", 4)
                if user in (fields[0], fields[2]) and _is_id(fields[2]) and _is_id(fields[3])
            ),
            None,
        )
        if entry is not None:
            uid, gid = int(entry[2]), int(entry[3])
        elif _is_id(user):
            uid = int(user)
        else:
            raise _nobody(wanted, "/etc/passwd", user, is_asked_for)
        if entry is not None and user == entry[0] and not _is_id(user) and not group:
            gids = [
                int(fields[2])
                for fields in accounts.records(rootfs, "/etc/group", 4)
                if user in fields[3].split(",") and _is_id(fields[2])
            ]
    if group:
        if _is_id(group):
            gid = int(group)
        else:
            found = [
                int(fields[2])
                for fields in accounts.records(rootfs, "/etc/group", 3)
                if fields[0] == group and _is_id(fields[2])
            ]
            if not found:
                raise _nobody(wanted, "/etc/group", group, is_asked_for)
            gid = found[0]
    elif colon and not user:
        raise _nobody(wanted, "/etc/passwd", wanted, is_asked_for)
    return {"uid": uid, "gid": gid, **({"additionalGids": gids} if gids else {})}


def _nobody(wanted: str, path: str, name: str, is_asked_for: bool) -> Error:
    if is_asked_for:
        return Error(f"--user {wanted}: the image's {path} has no {name!r}: give the number")
    return Error(
        f"the image is to run as {wanted!r}, and its {path} has no {name!r}: it is broken, "
        "say another with --user"
    )


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < _ID_LIMIT


def _string(own: dict[str, Any], member: str, what: str) -> str:
    value = own.get(member)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Error(f"{what}: {member} is no string")
    return value


def _strings(own: dict[str, Any], member: str, what: str) -> list[str]:
    values = image.require_list(own.get(member), f"{member} in {what}")
    if not all(isinstance(value, str) for value in values):
        raise Error(f"{what}: {member} has something that is no string")
    return list(values)
