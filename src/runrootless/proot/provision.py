"""Where PRoot comes from: the caller, the host, or the releases of its project."""

from __future__ import annotations

import os

from runrootless.errors import Error
from runrootless.proot.program import Program, examine, is_static

VARIABLE = "RUNROOTLESS_PROOT"
_MORE_DIRECTORIES = ("/usr/local/bin", "/usr/bin", "/bin")


def provide() -> Program:
    """Return a PRoot that can be executed, installing one if need be.

    In this order: the file that $RUNROOTLESS_PROOT names; a static ``proot`` in PATH; a
    dynamic one there; the one installed for this user before; a release that is downloaded
    now (see ``download.install``).  Raises ``Error`` if none can be had.
    """
    given = os.environ.get(VARIABLE, "")
    if given:
        if not _is_program(given):
            raise Error(f"{VARIABLE}={given} is not an executable file: correct it, or unset it")
        return examine(os.path.abspath(given))
    found = _in_path()
    for path in found:
        if is_static(path):
            return examine(path)
    for path in found:
        try:
            return examine(path)
        except Error:
            # A script, or a library is missing: there may be another one.
            continue
    from runrootless.proot import download

    return examine(download.install())


def _in_path() -> list[str]:
    directories = os.environ.get("PATH", os.defpath).split(":")
    paths = [
        os.path.join(directory, "proot")
        for directory in (*directories, *_MORE_DIRECTORIES)
        # A relative entry of PATH means another program in every directory.
        if directory.startswith("/")
    ]
    return [path for path in dict.fromkeys(paths) if _is_program(path)]


def _is_program(path: str) -> bool:
    return os.access(path, os.X_OK) and os.path.isfile(path)
