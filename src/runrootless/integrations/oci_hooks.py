"""The file by which podman, buildah and CRI-O learn of a hook: oci-hooks(5)."""

from __future__ import annotations

import json
import os

from runrootless import home
from runrootless.errors import Error
from runrootless.integrations import user_files

NAME = "runrootless.json"
ANNOTATION = "org.runrootless.hook"
"""The annotation of containers that are to be emulated: its value is ``true``."""


def path(directory: str) -> str:
    """Return the file's path in a directory, the user's own for podman where that is empty."""
    if not directory:
        config = home.directory("XDG_CONFIG_HOME", ".config")
        directory = os.path.join(config, "containers", "oci", "hooks.d")
    return os.path.join(os.path.abspath(directory), NAME)


def write(path: str, command: str, *, always: bool) -> None:
    """Write the file, for the hook ``command hook``. Raises Error.

    It is for all containers, or for those with the annotation.
    """
    when = {"always": True} if always else {"annotations": {f"^{ANNOTATION}$": "^true$"}}
    # An environment that is not said is the runtime's, or empty.
    names = ("HOME", "PATH", "XDG_RUNTIME_DIR", "XDG_DATA_HOME")
    environment = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
    hook = {"path": command, "args": ["runrootless", "hook"], "env": environment}
    entry = {"version": "1.0.0", "hook": hook, "when": when, "stages": ["createRuntime"]}
    user_files.write(path, json.dumps(entry, indent="\t") + "\n")


def remove(path: str) -> None:
    """Remove the file; no error where it is not there. Raises Error."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise Error(f"cannot remove {path}: {error.strerror}") from None
