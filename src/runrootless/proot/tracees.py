"""The processes under a PRoot, as /proc shows them: proc(5)."""

from __future__ import annotations

import os


def children_of_all() -> dict[int, list[int]]:
    """Return the children of each process that /proc shows, the oldest first."""
    found: list[tuple[int, int, int]] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] not in (b"Z", b"X"):
                # Its parent, and when it was started.
                found.append((int(fields[19]), int(name), int(fields[1])))
    children: dict[int, list[int]] = {}
    for _, pid, parent in sorted(found):
        children.setdefault(parent, []).append(pid)
    return children


def first_tracee(proot: int) -> int | None:
    """Return the process ID of the command that a PRoot executes, ``None`` if there is none."""
    return next(iter(children_of_all().get(proot, ())), None)


def descendants(ancestor: int) -> list[int]:
    """Return the process IDs of all that descend from a process, parents first."""
    children = children_of_all()
    found = list(children.get(ancestor, ()))
    for pid in found:
        found += children.get(pid, ())
    return found
