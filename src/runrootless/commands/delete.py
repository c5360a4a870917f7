"""``delete``: the runtime's, and then the private directory is removed as well."""

from __future__ import annotations

import os

from runrootless.command_line import runc as command_line
from runrootless.containers import janitor, state
from runrootless.runtimes import private_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.invocation import Invocation


def prepare(invocation: Invocation) -> list[str]:
    """Return the runtime's command line, with somebody waiting to clean up after it."""
    parsed = invocation.parse(command_line.DELETE, flags_anywhere=True)
    if parsed.error:
        from runrootless.command_line import own

        own.require_flags(parsed, (), command_line.DELETE)
    else:
        root = invocation.state_root()
        if parsed.is_on("regex"):
            # Which of them go is the runtime's to find out.
            containers = private_directory.all_of(root)
        else:
            containers = {}
            for container_id in filter(state.is_valid_id, parsed.arguments):
                directory = private_directory.usable(container_id, root)
                if directory is not None:
                    containers[container_id] = directory
        for container_id, directory in containers.items():
            janitor.attend(directory, os.path.join(root, container_id))
    return invocation.unchanged()
