"""Where a user's files are: $HOME, and the XDG Base Directory Specification."""

from __future__ import annotations

import os

from runrootless.errors import Error


def home() -> str:
    """Return the home directory, an absolute path, empty if there is none.

    It is $HOME, or what /etc/passwd says of the user.
    """
    path = os.environ.get("HOME", "")
    if path.startswith("/"):
        return path
    # Costs some start-up time.
    import pwd

    try:
        path = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""
    return path if path.startswith("/") else ""


def where(variable: str, default: str) -> str:
    """Return the absolute path that a variable names, or ``default`` below the home directory.

    It is empty if there is neither. A relative path counts as none, as the specification says.
    """
    path = os.environ.get(variable, "")
    if path.startswith("/"):
        return path
    directory = home()
    return os.path.join(directory, default) if directory else ""


def directory(variable: str, default: str) -> str:
    """Return what ``where`` does. Raises Error where that is nothing."""
    path = where(variable, default)
    if not path:
        raise Error(f"{_nowhere()}: set HOME, or {variable}, to a directory of your own")
    return path


def expand(path: str) -> str:
    """Return a path whose ``~`` or ``~user`` at the beginning is replaced, as a shell does.

    An unknown user's is kept. Raises Error where the caller has no home directory.
    """
    if path != "~" and not path.startswith("~/"):
        return os.path.expanduser(path)
    directory = home()
    if not directory:
        raise Error(f"cannot tell what {path} is: {_nowhere()}: set HOME")
    return directory + path[1:]


def _nowhere() -> str:
    return f"no home directory: HOME is not set, and /etc/passwd has none for user {os.getuid()}"
