"""``kill``: the runtime's, but for a container under PRoot, which ignores most signals."""

from __future__ import annotations

import os

from runrootless.command_line import runc as command_line
from runrootless.containers import state
from runrootless.runtimes import private_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.invocation import Invocation


def prepare(invocation: Invocation) -> list[str]:
    """Return the runtime's command line for a ``kill``.

    Raises SystemExit where the signal was sent to the command under PRoot instead.
    """
    parsed = command_line.parse(
        command_line.KILL, command_line.flags_first(command_line.KILL, invocation.arguments)
    )
    if parsed.error:
        from runrootless.command_line import own

        own.require_flags(parsed, (), command_line.KILL)
    if parsed.error or parsed.is_on("all") or not 1 <= len(parsed.arguments) <= 2:
        return invocation.unchanged()
    container_id = parsed.arguments[0]
    if not state.is_valid_id(container_id):
        return invocation.unchanged()
    root = invocation.state_root()
    directory = private_directory.usable(container_id, root)
    if directory is None or not os.path.exists(os.path.join(directory, state.PROOT)):
        return invocation.unchanged()

    from runrootless.proot.signals import is_for_tracee, number
    from runrootless.proot.tracees import first_tracee

    wanted = number(parsed.arguments[1] if len(parsed.arguments) > 1 else "TERM")
    init = invocation.runtime.init_pid(os.path.join(root, container_id))
    if wanted is None or init is None or not is_for_tracee(wanted):
        return invocation.unchanged()
    tracee = first_tracee(init)
    if tracee is None:
        return invocation.unchanged()
    try:
        os.kill(tracee, wanted)
    except ProcessLookupError:
        pass
    raise SystemExit(0)
