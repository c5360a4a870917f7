"""What a probe found, and running a probe in a child process that it may change."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

OK = "ok"
NO = "no"
INFO = "-"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    ``status`` is OK, NO (a problem, for which ``remedy`` says the setting or command that
    mends it) or INFO (neither here nor there); ``text`` says what was found.
    """

    name: str
    status: str
    text: str
    remedy: str = ""


def in_child(probe: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Return what ``probe`` returns in a process of its own, {} if that ends otherwise.

    What it does to itself, namespaces and filters, goes with that process.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.write(writing, json.dumps(probe()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    result: dict[str, int] = json.loads(answer or b"{}")
    return result


def error_of(call: Callable[[], object]) -> int:
    """Return the error number that ``call`` fails with, 0 if it does not."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def read(path: str) -> str:
    """Return the stripped text of a small file, empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
