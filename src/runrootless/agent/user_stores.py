"""Where the side stores of a user are, those of what is emulated on the host."""

from __future__ import annotations

import os

from runrootless import home
from runrootless.agent.side_files import NAMES

NAME = "runrootless"
"""The directory of the side stores of what is emulated on the host, below $XDG_DATA_HOME."""

APART = "host."
"""What their names begin with in the private directory, where that one cannot be had."""


def refusal(path: str) -> str:
    """Return why no side stores can be kept in ``directory()``, which is ``path``, or nothing."""
    if not path:
        return "HOME is not set to an absolute path"
    place = existing(path)
    try:
        is_read_only = os.statvfs(place).f_flag & os.ST_RDONLY
    except OSError as error:
        return f"{place} cannot be used ({error.strerror})"
    if not os.path.isdir(place):
        return f"{place} is not a directory"
    which = place if place == path else f"{path} is not there, and {place}"
    if is_read_only:
        return f"{which} is on a read-only file system"
    if not os.access(place, os.W_OK | os.X_OK):
        return f"{which} cannot be written to"
    return ""


def existing(path: str) -> str:
    """Return the longest part of an absolute path that there is."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def make(path: str) -> str:
    """Make ``directory()`` if it is not there. Return why that cannot be done, or nothing."""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except OSError as error:
        return f"cannot make {path} ({error.strerror})"
    return ""


def directory() -> str:
    """Return where the side stores of what is emulated on the host are, empty without a home."""
    data = home.where("XDG_DATA_HOME", ".local/share")
    return os.path.join(data, NAME) if data else ""


def copy(path: str, apart: str) -> None:
    """Let what is kept in ``directory()``, which is ``path``, be known in the files apart as well.

    ``apart`` is what the paths of those begin with. What cannot be read is left out.
    """
    for name in NAMES:
        unfinished = f"{apart}{name}.{os.getpid()}"
        try:
            if os.path.lexists(apart + name):
                # More may have been kept in it since.
                continue
            with open(os.path.join(path, name), "rb") as kept, open(unfinished, "xb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(kept.read())
            os.link(unfinished, apart + name)
        except OSError:
            # Somebody else has been faster, or there is no room: then nothing is known.
            pass
        finally:
            if os.path.lexists(unfinished):
                os.unlink(unfinished)
