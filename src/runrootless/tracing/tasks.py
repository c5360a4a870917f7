"""Threads as /proc shows them to this process, whatever its working directory."""

from __future__ import annotations

import os

from runrootless.linux.processes import status_fields

_DEAD = (b"Z", b"X")
_STOPPED = b"t"


def status(thread: int) -> bytes:
    """Return the text of its status file: proc(5). Raises OSError where it is gone."""
    with open(f"/proc/{thread}/status", "rb") as file:
        return file.read()


def field(thread: int, key: bytes) -> bytes:
    """Return the first word behind a key of its status file. Raises OSError where it is gone."""
    return status_fields(status(thread), key)[0]


def has_ended(thread: int) -> bool:
    """Return whether it is gone, or waits for nothing but its parent."""
    try:
        return field(thread, b"State") in _DEAD
    except OSError:
        return True


def is_stopped(thread: int, tracer: int) -> bool:
    """Return whether a process traces it, and has stopped it."""
    try:
        text = status(thread)
    except OSError:
        return False
    state, process = (status_fields(text, key)[0] for key in (b"State", b"TracerPid"))
    return state == _STOPPED and int(process) == tracer


def thread_count(process: int) -> int:
    """Return how many threads a process has. Raises OSError where it is gone."""
    return int(field(process, b"Threads"))


def threads(process: int) -> list[int]:
    """Return the threads of a process. Raises OSError where it is gone."""
    return [int(name) for name in os.listdir(f"/proc/{process}/task")]
