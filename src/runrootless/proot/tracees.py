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
    """Return the process ID of the command that a PRoot executes, ``None`` if there is none.

    PRoot has other children for a moment, which it does not trace.
    """
    return next((pid for pid in children_of(proot) if _tracer(pid) == proot), None)


def children_of(pid: int) -> list[int]:
    """Return the process IDs of the children of a process with one thread, the oldest first."""
    try:
        # Not every kernel has that file.
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return children_of_all().get(pid, [])


def _tracer(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == "State" and value.split()[0] in "ZX":
                    return None
                if name == "TracerPid":
                    return int(value)
    except OSError:
        pass
    return None


def descendants(ancestor: int) -> list[int]:
    """Return the process IDs of all that descend from a process, parents first."""
    children = children_of_all()
    found = list(children.get(ancestor, ()))
    for pid in found:
        found += children.get(pid, ())
    return found
