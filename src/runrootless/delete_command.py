"""``delete``: the runtime's, and then the container's private directory goes as well."""

from __future__ import annotations

import os

from runrootless import command_line, janitor, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.cli import Invocation


def prepare(invocation: Invocation) -> list[str]:
    """Return the runtime's command line, with somebody waiting to clean up after it."""
    flags = command_line.DELETE
    parsed = command_line.parse(flags, command_line.flags_first(flags, invocation.arguments))
    if not parsed.error:
        root = invocation.state_root()
        for container_id in parsed.arguments:
            if state.is_valid_id(container_id):
                directory = state.find_container_directory(container_id, root)
                if directory is not None:
                    janitor.attend(directory, os.path.join(root, container_id))
    return invocation.unchanged()
