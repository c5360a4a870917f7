"""``state`` and ``list``: the runtime's, with the user's bundles in place of the derived ones."""

from __future__ import annotations

import os
import sys

from runrootless import state
from runrootless.bundle import json_file
from runrootless.bundle.transform import MEMORY
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.cli import Invocation

_COLUMN = "BUNDLE"
_NEXT_COLUMN = "CREATED"


def prepare(invocation: Invocation) -> list[str]:
    """Return the runtime's command line where what it says can be left as it is.

    Otherwise the runtime is run as a child, and this process ends with its exit code.
    Raises OSError where there can be no child.
    """
    command = invocation.unchanged()
    root = invocation.state_root()
    if invocation.command == "state":
        directory = state.find_container_directory((invocation.arguments or [""])[-1], root)
        directories = [directory] if directory else []
    else:
        directories = list(state.container_directories(root).values())
    if not directories:
        return command
    output, code = _run(command, invocation.runtime.called)
    sys.stdout.write(with_user_bundles(output, _user_bundles(directories)))
    sys.stdout.flush()
    os._exit(code)


def _run(command: list[str], called: str) -> tuple[str, int]:
    """Return the standard output and the exit code of a command."""
    reader, writer = os.pipe()
    # Python ignores these two, and an ignored signal stays ignored over execve(2).
    _signal = __import__("_signal")
    pid = os.posix_spawn(
        command[0],
        [called, *command[1:]],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)],
        setsigdef=[_signal.SIGPIPE, _signal.SIGXFSZ],
    )
    os.close(writer)
    with open(reader, encoding="utf-8", errors="surrogateescape", newline="") as file:
        output = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return output, code if code >= 0 else 128 - code


def _user_bundles(directories: list[str]) -> dict[str, str]:
    """Return the user's bundles by the paths of those derived from them."""
    bundles = {}
    for directory in directories:
        try:
            bundle = json_file.read(os.path.join(directory, state.CONFIG))[MEMORY]["bundle"]
        except (OSError, Error, LookupError, TypeError):
            # It is being deleted.
            continue
        # The runtime says where it was, symlinks followed.
        bundles[os.path.realpath(directory)] = os.path.realpath(bundle)
    return bundles


def with_user_bundles(output: str, bundles: dict[str, str]) -> str:
    """Return the output of ``state`` or ``list`` with other bundles.

    ``bundles`` maps what stands there to what is to stand there. The form of the
    output stays what the runtime chose: JSON, or a table.
    """
    if output.lstrip()[:1] in ("{", "["):
        for old, new in bundles.items():
            output = output.replace(json_file.dump(old), json_file.dump(new))
        return output
    lines = output.split("\n")
    start = lines[0].find(_COLUMN)
    end = lines[0].find(_NEXT_COLUMN)
    if not 0 < start < end:
        # No table, or one without bundles.
        return output
    rows = []
    for line in lines:
        cell = line[start:end].rstrip()
        rows.append((line[:start], cell, bundles.get(cell, cell), line[end:]))
    gap = end - start - max(len(old) for _, old, _, _ in rows)
    width = gap + max(len(new) for _, _, new, _ in rows)
    return "\n".join(
        before + (new.ljust(width) if before.strip() else new) + after
        for before, _, new, after in rows
    )
