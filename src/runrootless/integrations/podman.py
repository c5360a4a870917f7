"""What podman and buildah must be told to work for a user with one ID, and to run us.

They read it from containers.conf(5) and containers-storage.conf(5) in the user's own
~/.config/containers.
"""

from __future__ import annotations

import os
import subprocess
import tempfile

from runrootless import home
from runrootless.errors import Error
from runrootless.integrations import image_owners, toml_text
from runrootless.toml_file import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NAME = "runrootless"
# Those that podman itself is built with: containers.conf(5), runtime_supports_json.
_JSON_RUNTIMES = ["crun", "runc", "kata", "runsc", "krun"]
_DRIVERS = ("overlay", "vfs")


def files(command: str) -> dict[str, Callable[[str], str]]:
    """Return each file to change, and what makes its new text of its present one.

    ``command`` is the path of this program. The functions raise ``Error`` for a file that
    cannot be changed.
    """
    directory = os.path.join(home.directory("XDG_CONFIG_HOME", ".config"), "containers")
    containers = os.path.join(directory, "containers.conf")
    storage = os.path.join(directory, "storage.conf")
    return {
        containers: lambda text: _use_runtime(text, containers, command),
        storage: lambda text: _use_storage(text, storage),
    }


def notes(storage: str) -> list[str]:
    """Return what the user should know, a line each; ``storage`` is the text of storage.conf."""
    settings = parse(storage, "storage.conf")
    root = _graph_root(settings)
    told = []
    driver = toml_text.get(settings, "storage", "driver")
    if driver == "vfs" and _can_overlay(root):
        told.append(
            f"{root} has the driver vfs, which copies all files of an image for each container; "
            "`podman system reset` removes what is there, and after it this command takes overlay"
        )
    if not _has_attributes(root):
        told.append(
            f"{root} is on a file system without extended attributes of users: all files of images "
            "will be root's; set graphroot in storage.conf to a directory on a local disk"
        )
    return told


def restore_owners() -> None:
    """Record the owners of the files of the images that the caller has: see ``image_owners``.

    To be called with CAP_DAC_OVERRIDE over them. Raises ``Error``, OSError.
    """
    path = os.path.join(home.directory("XDG_CONFIG_HOME", ".config"), "containers", "storage.conf")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (FileNotFoundError, UnicodeDecodeError):
        text = ""
    image_owners.restore_images(_graph_root(parse(text, path)))


def _use_runtime(text: str, path: str, command: str) -> str:
    settings = parse(text, path)
    json_runtimes = toml_text.get(settings, "engine", "runtime_supports_json")
    if not isinstance(json_runtimes, list):
        json_runtimes = _JSON_RUNTIMES
    if NAME not in json_runtimes:
        json_runtimes = [*json_runtimes, NAME]
    # Else podman shows our errors as the log lines that they come in.
    text = toml_text.change(text, "engine", "runtime_supports_json", json_runtimes, path)
    text = toml_text.change(text, "engine", "runtime", NAME, path)
    return toml_text.change(text, "engine.runtimes", NAME, [command], path)


def _use_storage(text: str, path: str) -> str:
    settings = parse(text, path)
    driver = toml_text.get(settings, "storage", "driver")
    if driver is None:
        driver = _best_driver(_graph_root(settings))
        text = toml_text.change(text, "storage", "driver", driver, path)
    elif driver not in _DRIVERS:
        raise Error(
            f"{path}: the driver {driver} cannot unpack images for a user with one ID: "
            f"set it to {' or '.join(_DRIVERS)}"
        )
    return toml_text.change(text, f"storage.options.{driver}", "ignore_chown_errors", "true", path)


def _best_driver(root: str) -> str:
    # podman refuses another driver than the one that its database was made with.
    for driver in _DRIVERS:
        if os.path.isdir(os.path.join(root, f"{driver}-layers")):
            return driver
    return "overlay" if _can_overlay(root) else "vfs"


def _graph_root(settings: dict[str, Any]) -> str:
    for key in ("rootless_storage_path", "graphroot"):
        path = toml_text.get(settings, "storage", key)
        if isinstance(path, str) and path:
            return os.path.expandvars(path.replace("$UID", str(os.getuid())))
    return os.path.join(home.directory("XDG_DATA_HOME", ".local/share"), "containers", "storage")


def _can_overlay(root: str) -> bool:
    """Return whether the kernel mounts overlay file systems there in a user namespace."""
    with tempfile.TemporaryDirectory(dir=_existing(root)) as directory:
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(os.path.join(directory, name))
        options = "userxattr,lowerdir=lower,upperdir=upper,workdir=work"
        command = ["mount", "-t", "overlay", "overlay", "-o", options, "merged"]
        # The kernel makes work/work without any permission.
        script = '"$@" && umount merged; result=$?; chmod -R u+rwx work; exit $result'
        try:
            done = subprocess.run(
                ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
                + command,
                cwd=directory,
                capture_output=True,
            )
        except OSError:
            return False
        return done.returncode == 0


def _has_attributes(root: str) -> bool:
    with tempfile.NamedTemporaryFile(dir=_existing(root)) as file:
        try:
            os.setxattr(file.fileno(), "user.runrootless.test", b"")
        except OSError:
            return False
        return True


def _existing(path: str) -> str:
    """Return the nearest directory above ``path`` that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
