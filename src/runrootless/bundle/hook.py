"""What runs before a hook of the user's: it becomes the hook, which then sees the user's bundle.

This module is executed by the runtime, not loaded by ``run``.
"""

from __future__ import annotations

# The C half of the module "signal", which imports enum.
import _signal  # type: ignore[import-not-found]
import os
import sys

from runrootless.bundle import json_file
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_STANDARD_INPUT = 0
_NOT_EXECUTED = 126


def become(arguments: list[str]) -> NoReturn:
    """Execute a hook: the private directory, the user's bundle, the hook's path and arguments.

    It begins in the bundle, and finds it in its state, where the runtime has the private
    directory. All else is as the runtime made it. Where it cannot be executed the process ends.
    """
    directory, bundle, path, *words = arguments
    try:
        _begin_in(directory, bundle)
        _show(directory, bundle)
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
            # Python ignores these, and an ignored signal stays so.
            _signal.signal(number, _signal.SIG_DFL)
        os.execve(path, words, _environment())
    except (OSError, Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        sys.stderr.write(f"runrootless: cannot execute the hook {path}: {reason}\n")
        sys.stderr.flush()
        os._exit(_NOT_EXECUTED)


def _begin_in(directory: str, bundle: str) -> None:
    """Go to the bundle if this process is where the runtime has its own. Raises OSError."""
    try:
        is_there = os.path.samefile(".", directory)
    except OSError:
        # It is gone, or the working directory is.
        return
    if is_there:
        os.chdir(bundle)


def _show(directory: str, bundle: str) -> None:
    """Put the state on the standard input, with another bundle. Raises OSError, Error."""
    with open(_STANDARD_INPUT, encoding="utf-8", errors="surrogateescape", closefd=False) as file:
        text = file.read()
    try:
        state = json_file.parse(text, "the state")
    except Error:
        state = None
    if isinstance(state, dict) and state.get("bundle") == os.path.realpath(directory):
        state["bundle"] = bundle
        text = json_file.dump(state)
    file_in_memory = os.memfd_create("state", 0)
    json_file.write_all(file_in_memory, text.encode("utf-8", "surrogateescape"))
    os.lseek(file_in_memory, 0, os.SEEK_SET)
    os.dup2(file_in_memory, _STANDARD_INPUT)
    if file_in_memory != _STANDARD_INPUT:
        os.close(file_in_memory)


def _environment() -> dict[bytes, bytes]:
    """Return the environment as the runtime made it.

    Python sets LC_CTYPE itself where nothing says of which locale it is (PEP 538).
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return dict(os.environb)
    return dict(entry.split(b"=", 1) for entry in entries if b"=" in entry)
