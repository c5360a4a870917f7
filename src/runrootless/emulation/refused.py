"""Calls that fail with ENOSYS in a container."""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.call import Call


class Refused:
    """Handlers of these calls."""

    def not_there(self, call: Call) -> int:
        """Any of them: as a kernel without it answers."""
        return -errno.ENOSYS
