"""The OCI runtimes that do the work: which one, and where it keeps its state."""

from __future__ import annotations

import os
import sys

from runrootless.errors import Error, suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

KNOWN = ("runc", "crun")
"""The runtimes that are looked for, the preferred one first."""

# Where they keep a container's first process: runc, then crun.
_STATE_FILES = (("state.json", "init_process_pid"), ("status", "pid"))
_BUNDLE_LABEL = "bundle="
# Distributions install runtimes where an unprivileged PATH often does not lead.
_MORE_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")


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

    def gives_hooks_descriptors(self) -> bool:
        """Return whether hooks that the container's first process executes have all it has.

        crun closes what is passed on to a container, and its first process is not dumpable.
        """
        return self.name == "runc"

    def opens_devices(self) -> bool:
        """Return whether it opens what is in the place of a device, to bind the host's over it.

        crun does not.
        """
        return self.name == "runc"

    def needs_a_terminal(self) -> bool:
        """Return whether a process with a terminal that is not detached needs the caller's.

        runc looks at the standard streams, and then at /dev/tty. crun goes without.
        """
        return self.name == "runc"

    def init_pid(self, state_directory: str) -> int | None:
        """Return the process ID of a container's first process, ``None`` if unknown.

        ``state_directory`` is where the runtime keeps the state of the container.
        """
        return init_pid(state_directory)


def init_pid(state_directory: str) -> int | None:
    """Return what ``Runtime.init_pid`` does; known of every runtime that is known here."""
    for key, state in _states(state_directory):
        pid = state.get(key)
        if isinstance(pid, int) and pid > 0:
            return pid
    return None


def bundle(state_directory: str) -> str | None:
    """Return the bundle that a runtime has made a container from, ``None`` if unknown.

    ``state_directory`` is where the runtime keeps the state of the container.
    """
    for _, state in _states(state_directory):
        path = state.get("bundle")
        if isinstance(path, str) and path:
            return path
        # runc has it among the labels, where it cannot be told apart but by its name.
        config = state.get("config")
        labels = config.get("labels") if isinstance(config, dict) else None
        for label in labels if isinstance(labels, list) else ():
            if isinstance(label, str) and label.startswith(_BUNDLE_LABEL):
                return label[len(_BUNDLE_LABEL) :]
    return None


def _states(state_directory: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each state of a container that can be read, after the name of its process ID."""
    from runrootless.bundle import json_file

    for file, key in _STATE_FILES:
        try:
            state = json_file.read(os.path.join(state_directory, file))
        except (OSError, Error):
            continue
        if isinstance(state, dict):
            yield key, state


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
        raise Error(
            f"the runtime {name} is not in PATH: "
            f"install it, or give --runtime its path{suggestion(name, KNOWN)}"
        )
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
