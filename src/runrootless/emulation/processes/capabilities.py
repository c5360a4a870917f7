"""Capabilities of emulated processes: capget(2), capset(2).

The kernel's own capabilities of a process in the container do not change with its
emulated user ID. It is shown what both the kernel and the emulation leave it. For
the kernel that is the permitted set, and what execve(2) would have given back out of the
bounding set (``Identity.may``).
"""

from __future__ import annotations

import errno

from runrootless.emulation.call import Call, write
from runrootless.emulation.handlers import Handlers
from runrootless.linux.capabilities import (
    DATA,
    HEADER,
    VERSION,
    bounding_set,
    capabilities,
    pack,
    unpack,
)
from runrootless.linux.processes import read_status, status_fields

_VERSIONS = (0x20071026, VERSION)


class Capabilities(Handlers):
    """Handlers of the calls about capabilities."""

    def capget(self, call: Call) -> int | None:
        """capget(2) of the caller itself; other processes' are the kernel's to tell."""
        header, data = call.arguments[:2]
        if not data or not self._concerns_caller(call, header):
            return None
        credentials = self._identity.of(call.pid)
        kernel = capabilities(call.pid)
        held = kernel[1] | bounding_set(call.pid)
        shown = credentials.effective & held, credentials.permitted & held, kernel[2]
        if shown == kernel:
            return None
        return 0 if write(self._memory, call, (data, pack(*shown))) else -errno.EFAULT

    def capset(self, call: Call) -> int | None:
        """capset(2): the kernel carries it out as well, for it can only take away."""
        header, data = call.arguments[:2]
        packed = self._memory.read(call.pid, data, DATA.size)
        if packed is None or not self._concerns_caller(call, header):
            return None
        effective, permitted, _ = unpack(packed)
        old = self._identity.of(call.pid)
        _, kernel_permitted, _ = capabilities(call.pid)
        held = kernel_permitted | bounding_set(call.pid)
        shown = old.permitted & held
        if permitted & ~shown:
            return -errno.EPERM
        to_kernel = not permitted & ~kernel_permitted
        # A process that keeps all that is left of "all" has lost nothing.
        if permitted == shown:
            permitted = old.permitted
            if effective == shown:
                effective = old.permitted
        self._identity.change(call, old, old.with_capabilities(permitted, effective))
        return None if to_kernel else 0

    def _concerns_caller(self, call: Call, header: int) -> bool:
        packed = self._memory.read(call.pid, header, HEADER.size)
        if packed is None:
            return False
        version, pid = HEADER.unpack(packed)
        if version not in _VERSIONS:
            return False
        # The caller may name itself, as its own pid namespace numbers it.
        return bool(pid == 0 or pid == int(status_fields(read_status(call.pid), b"NSpid")[-1]))
