"""Capabilities of emulated processes: capget(2), capset(2).

The kernel's own capabilities of a process in the container do not change with its
emulated user ID. What it is shown is what both, the kernel and the emulation, leave it.
"""

from __future__ import annotations

import errno
import struct

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.credentials import ALL_CAPABILITIES
from runrootless.emulation.handlers import Handlers
from runrootless.linux.processes import read_status, status_fields

_HEADER = struct.Struct("=Ii")
_VERSIONS = (0x20071026, 0x20080522)
_DATA = struct.Struct("=6I")


class Capabilities(Handlers):
    """Handlers of the calls about capabilities."""

    def capget(self, call: Call) -> int | None:
        """capget(2) of the caller itself; other processes' are the kernel's to tell."""
        header, data = call.arguments[:2]
        credentials = self._identity.of(call.pid)
        if credentials.permitted == credentials.effective == ALL_CAPABILITIES or not data:
            return None
        if not self._concerns_caller(call, header):
            return None
        inheritable, permitted, effective = kernel_capabilities(call.pid)
        permitted &= credentials.permitted
        effective &= credentials.effective
        require_valid(call)
        packed = _pack(effective, permitted, inheritable)
        return 0 if self._memory.write(call.pid, data, packed) else -errno.EFAULT

    def capset(self, call: Call) -> int | None:
        """capset(2): the kernel carries it out as well, for it can only take away."""
        header, data = call.arguments[:2]
        packed = self._memory.read(call.pid, data, _DATA.size)
        if packed is None or not self._concerns_caller(call, header):
            return None
        low_effective, low_permitted, _, effective, permitted, _ = _DATA.unpack(packed)
        effective = effective << 32 | low_effective
        permitted = permitted << 32 | low_permitted
        old = self._identity.of(call.pid)
        # Whoever keeps all that the kernel left of "all" has lost nothing.
        _, kernel_permitted, _ = kernel_capabilities(call.pid)
        beyond = ~kernel_permitted & ALL_CAPABILITIES
        if permitted == kernel_permitted & old.permitted:
            permitted |= beyond & old.permitted
            if effective == kernel_permitted & old.permitted:
                effective |= beyond & old.permitted
        self._identity.change(call, old, old.with_capabilities(permitted, effective))
        return None

    def _concerns_caller(self, call: Call, header: int) -> bool:
        packed = self._memory.read(call.pid, header, _HEADER.size)
        if packed is None:
            return False
        version, pid = _HEADER.unpack(packed)
        if version not in _VERSIONS:
            return False
        # The caller may name itself, as its own pid namespace numbers it.
        return bool(pid == 0 or pid == int(status_fields(read_status(call.pid), b"NSpid")[-1]))


def _pack(effective: int, permitted: int, inheritable: int) -> bytes:
    low = (value & 0xFFFFFFFF for value in (effective, permitted, inheritable))
    high = (value >> 32 for value in (effective, permitted, inheritable))
    return _DATA.pack(*low, *high)


def kernel_capabilities(pid: int) -> tuple[int, int, int]:
    """Return the inheritable, permitted and effective sets that the kernel holds of a process."""
    text = read_status(pid)
    inheritable, permitted, effective = (
        int(status_fields(text, key)[0], 16) for key in (b"CapInh", b"CapPrm", b"CapEff")
    )
    return inheritable, permitted, effective
