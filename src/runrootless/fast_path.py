"""The fast path: an object (native/fast.c) that answers calls in the programs of a container.

It is mounted below the container's own /dev, where nothing of it is left in the root file
system, and LD_PRELOAD names it. It only makes things faster: where it cannot be, it is not.
"""

from __future__ import annotations

import os

from runrootless.bundle.json_file import write_all
from runrootless.bundle.spec import FAST_PATH_ANNOTATION
from runrootless.containers import state
from runrootless.emulation.fast_state import PATH, numbered
from runrootless.errors import Error
from runrootless.launcher import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.bundle.host import HostFacts

NAME = "fast.so"
"""Its name in the container's private directory, and among the native files."""

_VARIABLE = "LD_PRELOAD="
_ANSWERS = {"on": True, "off": False, "": False}
_HARMLESS = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_ERRNO")


def is_wanted(option: str, annotation: str) -> bool:
    """Return whether the caller wants it.

    ``option`` is the value of ``--fast-path``; where it is empty $RUNROOTLESS_FAST_PATH counts,
    and then the spec's ``annotation``. Raises Error for anything but ``on`` and ``off``.
    """
    wishes = (
        (option, "--fast-path"),
        (os.environ.get("RUNROOTLESS_FAST_PATH", ""), "$RUNROOTLESS_FAST_PATH"),
        (annotation, f"the annotation {FAST_PATH_ANNOTATION}"),
    )
    value, source = next((wish for wish in wishes if wish[0]), ("", ""))
    if value not in _ANSWERS:
        raise Error(f"{source} takes on or off, not {value}")
    return _ANSWERS[value]


def obstacle(spec: dict[str, Any], engine: str, directory: str, host: HostFacts) -> str | None:
    """Return why a rootless spec cannot have it, None if it can.

    ``engine`` is the name of that, and ``directory`` the container's private one.
    """
    if engine != "notify":
        return f"the engine {engine} has none"
    if any(one.get("type") == "mount" and one.get("path") for one in spec["linux"]["namespaces"]):
        return "it joins another mount namespace"
    mounts = [mount for mount in spec["mounts"] if _covers_dev(mount)]
    if not mounts or mounts[-1].get("type") != "tmpfs" or "ro" in (mounts[-1].get("options") or ()):
        return "the bundle has no tmpfs of its own at /dev"
    if spec["process"].get("selinuxLabel") or spec["process"].get("apparmorProfile"):
        return "what a process with a label of its own may execute is not known"
    if "noexec" in host.locked_mount_options(directory):
        return f"nothing may be executed in {directory}"
    profile = spec["linux"].get("seccomp") or {}
    actions = {rule.get("action") for rule in profile.get("syscalls") or ()}
    if profile:
        actions.add(profile.get("defaultAction"))
    if not actions <= set(_HARMLESS):
        # A program may then not make calls that it does not know of.
        return "the bundle's seccomp profile ends processes, or stops them, for some calls"
    return None


def put(spec: dict[str, Any], directory: str, host: HostFacts) -> int:
    """Give a rootless spec the object; return the number that lets its calls through.

    Raises Error where the package has none for this machine, and OSError.
    """
    number = int.from_bytes(os.urandom(8), "little")
    path = f"{directory}/{NAME}"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, state.MODE)
    try:
        write_all(file, numbered(read(NAME), number))
        # Whatever the umask: users of the container are to read it.
        os.fchmod(file, 0o644)
    finally:
        os.close(file)
    options = ["bind", "nosuid", "nodev", "ro"]
    options += [name for name in host.locked_mount_options(directory) if name not in options]
    spec["mounts"].append({"destination": PATH, "type": "bind", "source": path, "options": options})
    preload(spec["process"])
    return number


def preload(process: dict[str, Any]) -> None:
    """Have a process (OCI runtime spec, ``process``) load the object, behind what it has itself."""
    environment = process["env"] = list(process.get("env") or ())
    for index, entry in enumerate(environment):
        if entry.startswith(_VARIABLE):
            if PATH not in entry[len(_VARIABLE) :].replace(" ", ":").split(":"):
                separator = "" if entry == _VARIABLE else ":"
                environment[index] = f"{entry}{separator}{PATH}"
            return
    environment.append(_VARIABLE + PATH)


def _covers_dev(mount: dict[str, Any]) -> bool:
    return os.path.normpath(mount.get("destination", "")) in ("/dev", "/", "/dev/runrootless")
