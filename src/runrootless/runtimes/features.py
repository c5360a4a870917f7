"""What a runtime itself says that it can do: the command ``features`` (OCI features.md).

Asking takes the start of a process. ``runtimes.Runtime`` remembers what was answered; this
module is imported only if nothing is remembered.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess

from runrootless.bundle.json_file import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SECONDS = 5


def ask(path: str) -> dict[str, Any] | None:
    """Return the features of the runtime at ``path``, None if it does not tell."""
    try:
        done = subprocess.run(
            [path, "features"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
        features = json.loads(done.stdout)
    except (OSError, ValueError, RecursionError, subprocess.TimeoutExpired):
        return None
    return features if isinstance(features, dict) else None


def seccomp_flags(features: dict[str, Any] | None) -> list[str]:
    """Return the flags of seccomp filters that runtime, library and kernel support together.

    ``knownFlags`` does not say that: features-linux.md, "Seccomp".
    """
    value: object = features
    for key in ("linux", "seccomp", "supportedFlags"):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, list):
        return []
    # Words, as they are remembered in a line.
    return [flag for flag in value if isinstance(flag, str) and flag.isidentifier()]


def ask_and_remember(path: str, file: str, key: str) -> list[str]:
    """Return the seccomp flags of the runtime at ``path``, and note them in ``file``.

    Where there is no directory of the caller's own to note them in, the runtime is not asked
    and has none: a little less is emulated then, and no start takes longer.
    """
    directory, name = os.path.split(file)
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return []
    try:
        return _ask_and_remember(path, directory_fd, name, key)
    finally:
        os.close(directory_fd)


def _ask_and_remember(path: str, directory_fd: int, name: str, key: str) -> list[str]:
    found = os.fstat(directory_fd)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        return []
    unfinished = f"{name}.{os.urandom(4).hex()}"
    try:
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory_fd)
    except OSError:
        return []
    try:
        flags = seccomp_flags(ask(path))
        try:
            write_all(file, f"{key}\n{' '.join(flags)}\n".encode())
            os.rename(unfinished, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
            unfinished = ""
        except OSError:
            # Then it is asked again next time.
            pass
        return flags
    finally:
        os.close(file)
        if unfinished:
            os.unlink(unfinished, dir_fd=directory_fd)
