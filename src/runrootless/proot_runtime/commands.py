"""runc's commands on containers under PRoot alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from runrootless.command_line import runc as command_line
from runrootless.errors import Error
from runrootless.proot.signals import is_for_tracee, number
from runrootless.proot.tracees import descendants, first_tracee
from runrootless.proot_runtime import container
from runrootless.proot_runtime.start import execute, start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.command_line.runc import Flags, Parsed
    from runrootless.invocation import Invocation
    from runrootless.proot_runtime.container import Container

_PATIENCE = 10.0
_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
_MINIMUM_WIDTH = 12
_GAP = 3
_LIST = command_line.Flags(values="format,f", switches="quiet,q help,h")
_PS = command_line.Flags(values="format,f", switches="help,h")
_HELP = command_line.Flags(switches="help,h")
# They concern no container.
_OTHERS = ("spec", "features", "help", "h", "completion", "checkpoint", "restore")


def do(invocation: Invocation) -> int | None:
    """Do a command if it concerns containers under PRoot alone; return the exit code.

    ``None`` if it does not, and is for the runtime.  Raises Error.
    """
    name = invocation.command
    if name in _OTHERS:
        return None
    if name == "list":
        return _list(invocation)
    flags, carry_out = _COMMANDS.get(name, (_HELP, _unavailable))
    # What follows the container's ID is the command's own in exec and ps.
    words = invocation.arguments
    if name not in ("exec", "ps"):
        words = command_line.flags_first(flags, words)
    parsed = command_line.parse(flags, words)
    identifier = next(iter(parsed.arguments), "") if not parsed.error else ""
    if parsed.error and name not in _COMMANDS:
        identifier = next((word for word in words if not word.startswith("-")), "")
    found = container.find(identifier, invocation.state_root())
    if found is None:
        return None
    return carry_out(invocation, found, parsed)


def _state(invocation: Invocation, found: Container, parsed: Parsed) -> int:
    sys.stdout.write(json.dumps(found.state(), indent=2) + "\n")
    return 0


def _start(invocation: Invocation, found: Container, parsed: Parsed) -> int:
    return start(found)


def _exec(invocation: Invocation, found: Container, parsed: Parsed) -> int:
    if not parsed.get("process") and len(parsed.arguments) < 2:
        raise Error('"exec" needs a command', 255)
    return execute(invocation, found, parsed)


def _kill(invocation: Invocation, found: Container, parsed: Parsed) -> int:
    name = parsed.arguments[1] if len(parsed.arguments) > 1 else "TERM"
    wanted = number(name)
    if wanted is None:
        raise Error(f"unknown signal {name!r}")
    if found.status() == "stopped":
        if parsed.is_on("all"):
            return 0
        raise Error("container not running")
    if parsed.is_on("all"):
        targets = [pid for pid in descendants(found.data["supervisor"]) if pid != found.pid]
    elif is_for_tracee(wanted):
        targets = [first_tracee(found.pid) or found.pid]
    else:
        targets = [found.pid]
    for pid in targets or [found.pid]:
        try:
            os.kill(pid, wanted)
        except ProcessLookupError:
            pass
    return 0


def _delete(invocation: Invocation, found: Container, parsed: Parsed) -> int:
    status = found.status()
    if status == "running" and not parsed.is_on("force"):
        raise Error(f"cannot delete container {found.id} that is not stopped: running")
    if status != "stopped":
        try:
            os.kill(found.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        deadline = time.monotonic() + _PATIENCE
        while found.status() != "stopped":
            if time.monotonic() > deadline:
                raise Error(f"container {found.id} does not end: process {found.pid}")
            time.sleep(0.005)
    found.discard()
    return 0


def _ps(invocation: Invocation, found: Container, parsed: Parsed) -> int:
    pids = descendants(found.data["supervisor"]) if found.status() != "stopped" else []
    if parsed.get("format") == "json":
        sys.stdout.write(json.dumps(pids) + "\n")
        return 0
    listing = subprocess.run(
        ["ps", *(parsed.arguments[1:] or ["-ef"])], capture_output=True, text=True
    )
    lines = listing.stdout.splitlines()
    if listing.returncode != 0 or not lines:
        raise Error(f"ps failed: {listing.stderr.strip()}")
    if "PID" not in lines[0].split():
        raise Error("couldn't find PID field in ps output")
    column = lines[0].split().index("PID")
    wanted = {str(pid) for pid in pids}
    shown = [line for line in lines[1:] if line.split()[column] in wanted]
    sys.stdout.write("\n".join([lines[0], *shown]) + "\n")
    return 0


def _unavailable(invocation: Invocation, found: Container, parsed: Parsed) -> int:
    raise Error(
        f"{invocation.command} cannot be had for {found.id}: it runs under PRoot alone, because "
        "there are no user namespaces on this host"
    )


def _list(invocation: Invocation) -> int | None:
    parsed = command_line.parse(_LIST, invocation.arguments)
    containers = container.all_of(invocation.state_root())
    if parsed.error or parsed.is_on("help") or not containers:
        return None
    if parsed.is_on("quiet"):
        sys.stdout.write("".join(f"{found.id}\n" for found in containers))
        return 0
    states = [found.state() for found in containers]
    if parsed.get("format") == "json":
        sys.stdout.write(json.dumps(states, separators=(",", ":")) + "\n")
        return 0
    rows = [_COLUMNS] + [
        (s["id"], str(s["pid"]), s["status"], s["bundle"], s["created"], s["owner"]) for s in states
    ]
    widths = [
        max(_MINIMUM_WIDTH, *(len(row[column]) + _GAP for row in rows))
        for column in range(len(_COLUMNS) - 1)
    ]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        sys.stdout.write("".join([*cells, row[-1]]) + "\n")
    return 0


_COMMANDS: dict[str, tuple[Flags, Callable[[Invocation, Container, Parsed], int]]] = {
    "state": (_HELP, _state),
    "start": (_HELP, _start),
    "exec": (command_line.EXEC, _exec),
    "kill": (command_line.KILL, _kill),
    "delete": (command_line.DELETE, _delete),
    "ps": (_PS, _ps),
}
