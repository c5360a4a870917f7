"""The OCI runtimes that do the work: which one, and where it keeps its state."""

from __future__ import annotations

import os
import sys
import time
from binascii import crc32
from stat import S_IMODE, S_ISREG

from runrootless.errors import Error

WAIT_KILLABLE_RECV = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
"""The flag, as in ``Runtime.seccomp_flags``, with which only the end of its process interrupts
a call that an agent has received."""

KNOWN = ("runc", "crun")
"""The runtimes that are looked for, the preferred one first."""

# Where they keep a container's first process: runc, then crun.
_STATE_FILES = (("state.json", "init_process_pid"), ("status", "pid"))
# Distributions install runtimes where an unprivileged PATH often does not lead.
_MORE_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
# How long what a runtime has told is believed, in seconds: of its libraries nothing is known.
_LIFETIME = 86400
_MAXIMUM_SIZE = 4096


class Runtime:
    """An OCI runtime: the ``path`` of its program and the ``name`` at the end of it.

    ``called`` is the word that a user would type for it, which its error messages
    begin with.
    """

    __slots__ = ("called", "name", "path")

    def __init__(self, path: str, called: str = "") -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.called = called or path

    def default_root(self) -> str:
        """Return the state root that the runtime takes itself when real root calls it."""
        return f"/run/{self.name}"

    def takes_go_flags_only(self) -> bool:
        """Return whether flags that Go's parser refuses are a mistake, as ``-bDIR`` is."""
        return self.name == "runc"

    def takes_gnu_flags_first(self) -> bool:
        """Return whether flags mean what getopt_long(3) makes of them, where Go's differs."""
        return self.name == "crun"

    def paths_in_bundle(self) -> tuple[str, ...]:
        """Return the flags whose relative paths only some runtimes take from the bundle on.

        runc takes its pid file from the caller's directory on.
        """
        return () if self.name == "runc" else ("pid-file",)

    def execs_from_bundle(self) -> bool:
        """Return whether ``exec`` without ``--process`` does all that the bundle says.

        crun ignores ``noNewPrivileges`` and ``rlimits`` of the bundle then.
        """
        return self.name == "runc"

    def seccomp_flags(self) -> list[str]:
        """Return the flags of seccomp filters that the runtime says it supports.

        What it has said is remembered for each user; see ``features``.
        """
        file = _memory(self.path)
        if not file:
            return []
        try:
            found = os.stat(self.path)
        except OSError:
            return []
        identity = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
        key = f"{self.path!a} {' '.join(map(str, identity))} {os.uname().release}"
        flags = _remembered(file, key)
        if flags is None:
            from runrootless.runtimes.features import ask_and_remember

            flags = ask_and_remember(self.path, file, key)
        return flags

    def init_pid(self, state_directory: str) -> int | None:
        """Return the process ID of a container's first process, ``None`` if unknown.

        ``state_directory`` is where the runtime keeps the state of the container.
        """
        return init_pid(state_directory)


def _memory(path: str) -> str:
    """Return the file for what the runtime at ``path`` has told; empty if it has no place."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not cache.startswith("/"):
        home = os.environ.get("HOME", "")
        if not home.startswith("/"):
            return ""
        cache = f"{home}/.cache"
    return f"{cache}/runrootless/features-{crc32(os.fsencode(path)):08x}"


def _remembered(file: str, key: str) -> list[str] | None:
    """Return the words in ``file`` under ``key``, None where it has none to be believed."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if (
            not S_ISREG(found.st_mode)
            or found.st_uid != os.geteuid()
            or S_IMODE(found.st_mode) & 0o022
            or not 0 <= time.time() - found.st_mtime < _LIFETIME
        ):
            return None
        lines = os.read(fd, _MAXIMUM_SIZE).decode().split("\n")
    except (OSError, UnicodeDecodeError):
        return None
    finally:
        os.close(fd)
    return lines[1].split() if len(lines) == 3 and lines[0] == key and not lines[2] else None


def init_pid(state_directory: str) -> int | None:
    """Return what ``Runtime.init_pid`` does; known of every runtime that is known here."""
    from runrootless.bundle import json_file

    for file, key in _STATE_FILES:
        try:
            state = json_file.read(os.path.join(state_directory, file))
        except (OSError, Error):
            continue
        pid = state.get(key) if isinstance(state, dict) else None
        if isinstance(pid, int) and pid > 0:
            return pid
    return None


def choose(name: str) -> Runtime:
    """Return the runtime called ``name``, a path or a name to look up.

    An empty name means $RUNROOTLESS_RUNTIME, and without that the first one
    installed of those known.  Raises ``Error`` if there is none.
    """
    name = name or os.environ.get("RUNROOTLESS_RUNTIME", "")
    if "/" in name:
        if not _is_program(name):
            raise Error(f"the runtime {name} is not an executable file: correct --runtime")
        return Runtime(os.path.abspath(name))
    for candidate in (name,) if name else KNOWN:
        path = find(candidate)
        if path is not None:
            return Runtime(path, candidate)
    if name:
        raise Error(f"the runtime {name} is not in PATH: install it, or give --runtime its path")
    raise Error(
        "no OCI runtime found: install runc or crun (the package of that name), "
        "or give the path of one with --runtime"
    )


def find(name: str) -> str | None:
    """Return the path of the runtime called ``name``, ``None`` if it is not installed."""
    directories = os.environ.get("PATH", os.defpath).split(":")
    for directory in (*directories, *_MORE_DIRECTORIES):
        path = os.path.join(directory, name)
        # A relative entry of PATH means another program in every directory.
        if directory.startswith("/") and _is_program(path) and not _is_this_program(path):
            return path
    return None


def _is_program(path: str) -> bool:
    return os.access(path, os.X_OK) and os.path.isfile(path)


def _is_this_program(path: str) -> bool:
    """Return whether ``path`` is a link to this command, put there to replace the runtime."""
    try:
        return os.path.samefile(path, sys.argv[0])
    except OSError:
        return False
