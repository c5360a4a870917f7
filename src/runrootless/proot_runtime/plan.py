"""From a spec to the words that execute PRoot: what of the spec PRoot can give."""

from __future__ import annotations

import os

from runrootless.bundle.mounts import destination
from runrootless.errors import Error
from runrootless.proot import command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.bundle.identity import Identity
    from runrootless.proot.program import Program

    Spec = dict[str, Any]

_OF_THE_HOST = {"proc": "/proc", "sysfs": "/sys", "devtmpfs": "/dev"}
# They are in the host's /dev, or are no use without a cgroup of one's own.
_LEFT_OUT = ("devpts", "mqueue", "cgroup", "cgroup2")


def program_words(program: Program) -> list[str]:
    """Return the words that execute ``program`` whatever is in the environment."""
    directories = dict.fromkeys(os.path.dirname(path) for path in program.libraries.values())
    return command.words(program, program.path, program.loader, ":".join(directories))


def root_options(spec: Spec, mounts: str) -> list[str]:
    """Return PRoot's options for the root directory and the mounts of ``spec``.

    ``spec`` is one that ``bundle.transform`` has made; ``mounts`` is a directory in which a
    directory is made for each tmpfs.  Raises Error for a mount that PRoot cannot express, and
    for a source that is not there.
    """
    options = ["-r", spec["root"]["path"]]
    for number, mount in enumerate(spec.get("mounts", ())):
        place = destination(mount)
        source = _source(mount, place, os.path.join(mounts, str(number)))
        if source is None:
            continue
        for path in (source, place):
            if ":" in path:
                raise Error(f"PRoot cannot bind {path}: there is a colon in it")
        options += ["-b", f"{source}:{place}"]
    return options


def _source(mount: dict[str, Any], place: str, own: str) -> str | None:
    kind = mount.get("type", "")
    given = mount.get("options", ())
    if kind == "bind" or "bind" in given or "rbind" in given:
        source: str = mount["source"]
        if not os.path.lexists(source):
            raise Error(f"the source {source} of the mount at {place} is missing")
        return source
    if kind == "tmpfs" and place == "/dev":
        return "/dev"
    if kind == "tmpfs":
        os.makedirs(own, 0o755)
        return own
    if kind in _LEFT_OUT:
        return None
    if kind in _OF_THE_HOST:
        return _OF_THE_HOST[kind]
    raise Error(f"without user namespaces nothing of type {kind} can be mounted at {place}")


def process_options(process: dict[str, Any], identity: Identity) -> list[str]:
    """Return PRoot's options for a process (OCI runtime spec, ``process``), and its command."""
    cwd = process.get("cwd") or "/"
    return ["-w", cwd, *command.identity_options(identity), *process["args"]]
