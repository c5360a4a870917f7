"""The arguments and the environment of PRoot."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.bundle.identity import Identity
    from runrootless.proot.program import Program

TEMPORARY = "PROOT_TMP_DIR"
NO_SECCOMP = "PROOT_NO_SECCOMP"
_TRUE = ("1", "t", "T", "TRUE", "true", "True")

UNTRANSLATED = (
    "clone3",
    "execveat",
    "faccessat2",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "io_uring_setup",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "open_by_handle_at",
    "open_tree",
    "openat2",
    "quotactl_fd",
    "statx",
)
"""Calls with paths or owners that PRoot 5.1 does not know, and so would not change: a program
would see the files of the host, or their real owner. All of them are refused with ENOSYS,
at which C libraries take the older calls that PRoot knows. Newer versions know some of them,
and lose nothing."""

UNTRANSLATED_LATER = (
    "fchmodat2",
    "file_getattr",
    "file_setattr",
    "getxattrat",
    "listmount",
    "listxattrat",
    "open_tree_attr",
    "removexattrat",
    "setxattrat",
    "statmount",
)
"""Such calls of kernels newer than the headers that the numbers are from (Linux 6.1)."""

FIRST_LATER_NUMBER = 451
"""Where the numbers of those begin; the same on every machine."""


def wants_seccomp() -> bool:
    """Return whether $RUNROOTLESS_SECCOMP lets PRoot stop the calls it needs only."""
    return os.environ.get("RUNROOTLESS_SECCOMP", "") in _TRUE


def words(program: Program, path: str, loader: str, libraries: str) -> list[str]:
    """Return the words that execute ``program`` where its files have other paths.

    ``path`` and ``loader`` are its path and its loader's there, ``libraries`` is the directory
    there that holds the libraries under the names of ``program.libraries``.
    """
    if not program.loader:
        return [path]
    return [loader, "--library-path", libraries, path]


def identity_options(identity: Identity) -> list[str]:
    """Return PRoot's options for a process of ``identity``.

    Supplementary groups are not among what PRoot can make up.
    """
    if (identity.uid, identity.gid) == (0, 0):
        return ["-0"]
    return ["-i", f"{identity.uid}:{identity.gid}"]


def environment(temporary: str) -> list[str]:
    """Return what PRoot needs in its environment; ``temporary`` is a directory it may fill."""
    entries = [f"{TEMPORARY}={temporary}"]
    if not wants_seccomp():
        entries.append(f"{NO_SECCOMP}=1")
    return entries


def with_environment(existing: list[str], temporary: str) -> list[str]:
    """Return the environment ``existing`` with PRoot's own entries set as they must be."""
    names = (TEMPORARY + "=", NO_SECCOMP + "=")
    kept = [entry for entry in existing if not entry.startswith(names)]
    return kept + environment(temporary)
