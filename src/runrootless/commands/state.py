"""``state`` and ``list``: the runtime's, with the user's bundles in place of the derived ones."""

from __future__ import annotations

# The C half of the module "signal", which imports enum.
import _signal  # type: ignore[import-not-found]
import os
import sys

from runrootless.bundle import json_file
from runrootless.bundle.transform import MEMORY
from runrootless.containers import state
from runrootless.errors import Error
from runrootless.runtimes import private_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.invocation import Invocation

_COLUMN = "BUNDLE"
_NEXT_COLUMN = "CREATED"
# How runc lays its table out: the arguments of Go's tabwriter.NewWriter.
_GO_MINIMUM = 12
_GO_PADDING = 3


def prepare(invocation: Invocation) -> list[str]:
    """Return the runtime's command line where what it says can be left as it is.

    Otherwise the runtime is run as a child, and this process ends with its exit code.
    Raises OSError where there can be no child.
    """
    command = invocation.unchanged()
    root = invocation.state_root()
    if invocation.command == "state":
        directory = private_directory.usable((invocation.arguments or [""])[-1], root)
        directories = [directory] if directory else []
    else:
        directories = list(private_directory.all_of(root).values())
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
    return _table(output.split("\n"), bundles)


def _table(lines: list[str], bundles: dict[str, str]) -> str:
    start = lines[0].find(_COLUMN)
    width = lines[0].find(_NEXT_COLUMN) - start
    if start < 0 or width < 0:
        return "\n".join(lines)
    cells = [_cell(line[start:], width, bundles) for line in lines]
    new_width = width
    if width == max(_GO_MINIMUM, max(map(len, cells)) + _GO_PADDING):
        # runc's is as wide as need be; crun's is of one width, over which a row may run.
        longest = max(len(bundles.get(cell, cell)) for cell in cells)
        new_width = max(_GO_MINIMUM, longest + _GO_PADDING)
    table = []
    for line, cell in zip(lines, cells):
        if line:
            rest = line[start + len(cell) :].lstrip(" ")
            new = f"{bundles.get(cell, cell)} ".ljust(new_width)
            line = line[:start] + new + rest
        table.append(line)
    return "\n".join(table)


def _cell(text: str, width: int, bundles: dict[str, str]) -> str:
    """Return the bundle that ``text`` begins with: one of ``bundles``, or what fits the column."""
    for bundle in bundles:
        if text.startswith(f"{bundle} "):
            return bundle
    return text[:width].rstrip()
