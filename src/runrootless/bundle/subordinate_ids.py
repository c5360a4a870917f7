"""The subordinate IDs of a user: subuid(5), subgid(5)."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import TypeAlias

    Ranges: TypeAlias = list[tuple[int, int]]

_TOOLS = ("newuidmap", "newgidmap")
_FILES = ("/etc/subuid", "/etc/subgid")
_NAME_SERVICES = "/etc/nsswitch.conf"


def find(uid: int) -> tuple[Ranges, Ranges]:
    """Return the subordinate user and group IDs of the user ``uid``: (first, count) each.

    Both are empty unless there are some of both kinds, and the tools that map them are
    in $PATH.
    """
    if not all(_is_installed(tool) for tool in _TOOLS):
        return [], []
    name = _name(uid)
    uids, gids = (
        _from_file(path, {name, str(uid)}) or _from_name_service(name, kind)
        for path, kind in zip(_FILES, ((), ("-g",)))
    )
    return (uids, gids) if uids and gids else ([], [])


def _is_installed(tool: str) -> bool:
    directories = os.environ.get("PATH", os.defpath).split(":")
    return any(os.access(os.path.join(directory, tool), os.X_OK) for directory in directories)


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _from_file(path: str, owners: set[str]) -> Ranges:
    lines = [line.split(":") for line in _lines(path)]
    return _ranges(fields[1:] for fields in lines if len(fields) == 3 and fields[0] in owners)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.strip() for line in file]
    except OSError:
        return []


def _from_name_service(name: str, kind: tuple[str, ...]) -> Ranges:
    """Return the ranges that getsubids(1) has from where nsswitch.conf(5) says, as from LDAP.

    It prints ``0: NAME FIRST COUNT``.
    """
    if not any(line.startswith("subid:") for line in _lines(_NAME_SERVICES)):
        return []
    import subprocess

    try:
        done = subprocess.run(["getsubids", *kind, name], capture_output=True, text=True)
    except OSError:
        return []
    lines = [line.split() for line in done.stdout.splitlines()]
    return _ranges(fields[2:] for fields in lines if len(fields) == 4)


def _ranges(pairs: Iterable[list[str]]) -> Ranges:
    found = []
    for first, count in pairs:
        if first.isdecimal() and count.isdecimal() and int(count) > 0:
            found.append((int(first), int(count)))
    return found
