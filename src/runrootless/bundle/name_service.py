"""The files by which names are resolved: /etc/resolv.conf and /etc/hosts.

A container in the host's network needs what the host has. It gets copies of its own, which lie
in its private directory and are mounted, and which it may write to: an entry in /etc/hosts is
what many scripts make. What it writes lasts as long as the container.
"""

from __future__ import annotations

import os
from stat import S_IMODE, S_ISDIR, S_ISREG

from runrootless.bundle.mounts import destination
from runrootless.errors import Error, named, suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.bundle.host import HostFacts

    Spec = dict[str, Any]

NAMES = ("host", "none")
"""What ``--dns`` takes: copies of the host's files, or the root file system's own files."""

RESOLV_CONF = "/etc/resolv.conf"
HOSTS = "/etc/hosts"


def is_wanted(dns: str, source: str = "--dns") -> bool:
    """Return whether the value of ``--dns``, empty for the default, asks for mounts.

    ``source`` is where the user has said so. Raises Error for a value that means nothing.
    """
    if dns and dns not in NAMES:
        raise Error(
            f"there is no name service {dns}: {source} takes {', '.join(NAMES)}"
            f"{suggestion(dns, NAMES)}"
        )
    return dns != "none"


def add_host_files(spec: Spec, host: HostFacts, directory: str) -> None:
    """Mount copies of the host's files into a container that is in its network.

    Not where the spec has its own idea: a mount there or around it, or a network
    namespace of its own choice. ``directory`` is the container's private one. Raises OSError.
    """
    for namespace in spec["linux"]["namespaces"]:
        if namespace.get("type") == "network":
            return
    add_files(spec, host, directory, dict.fromkeys((RESOLV_CONF, HOSTS)))


def add_files(
    spec: Spec, host: HostFacts, directory: str, contents: dict[str, bytes | None]
) -> None:
    """Mount files below /etc with these contents, unless the spec has its own.

    That is a mount there or around it. None stands for what the host's has, if there is one.
    Raises OSError.
    """
    taken = [destination(mount) for mount in spec["mounts"]]
    root = spec["root"]
    access = ["ro"] if root.get("readonly") else []
    for path, content in contents.items():
        if path in taken or "/etc" in taken or (content is None and not host.exists(path)):
            continue
        if not _can_hold_file(root["path"], path):
            continue
        source = f"{directory}/{os.path.basename(path)}"
        mode = 0o644
        if content is None:
            with open(path, "rb") as file:
                content = file.read()
                mode = S_IMODE(os.fstat(file.fileno()).st_mode) | 0o444
        try:
            _write(source, content, mode)
        except OSError as error:
            raise named(error, source) from None
        spec["mounts"].append(
            {
                "destination": path,
                "type": "bind",
                "source": source,
                "options": ["bind", "nosuid", "noexec", "nodev", *access],
            }
        )


def _write(path: str, content: bytes, mode: int) -> None:
    """Make a file of this mode, whatever the mask. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with open(fd, "wb") as file:
        os.fchmod(fd, mode)
        file.write(content)


def _can_hold_file(root: str, path: str) -> bool:
    """Return whether a file can be mounted on ``path`` of the root file system.

    The runtime makes a missing mount point itself, following symlinks inside the
    root file system only, and fails if it may not.
    """
    try:
        if S_ISREG(os.lstat(root + path).st_mode):
            return True
    except OSError:
        pass
    from runrootless.bundle import rootfs

    try:
        place = rootfs.find(root, path)
    except OSError:
        return False
    try:
        if place.mode is None:
            return os.access(".", os.W_OK | os.X_OK, dir_fd=place.directory)
        return not S_ISDIR(place.mode)
    finally:
        place.close()
