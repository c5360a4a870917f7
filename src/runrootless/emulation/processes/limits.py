"""RLIMIT_RTTIME as programs see it: what they have set themselves.

The kernel's own value carries the identity (``identity``), so what a program sets is
kept beside its credentials. Nothing enforces it. A user who has set too many different ones
gets EPERM (``entry_file``), an error that prlimit(2) may have.
"""

from __future__ import annotations

import errno
import struct

from runrootless.emulation.call import Call, failure, require_valid, write
from runrootless.emulation.callers.credential_table import INFINITY
from runrootless.emulation.callers.credentials import CAP_SYS_RESOURCE
from runrootless.emulation.handlers import Handlers
from runrootless.emulation.stores.entry_file import FullError
from runrootless.linux.processes import find_process

_LIMITS = struct.Struct("=QQ")
_LIMITS_32 = struct.Struct("=II")
_INFINITY_32 = 0xFFFFFFFF
_OLD_INFINITY_32 = 0x7FFFFFFF


class Limits(Handlers):
    """Handlers of the calls about RLIMIT_RTTIME."""

    def getrlimit(self, call: Call) -> int:
        """getrlimit(2)."""
        soft, hard, _ = self._identity.state(call.pid)
        return self._write(call, call.arguments[1], _LIMITS.pack(soft, hard))

    def setrlimit(self, call: Call) -> int:
        """setrlimit(2)."""
        self._set(call, call.pid, *self._read(call, call.arguments[1], _LIMITS))
        return 0

    def prlimit(self, call: Call) -> int:
        """prlimit(2)."""
        _, _, new, old = call.arguments[:4]
        wanted = self._read(call, new, _LIMITS) if new else None
        process = find_process(call.pid, call.descriptor(0))
        if process != call.pid:
            self._check_permission(call.pid, process)
        soft, hard, _ = self._identity.state(process)
        if wanted is None:
            return self._write(call, old, _LIMITS.pack(soft, hard)) if old else 0
        self._set(call, process, *wanted)
        is_known = False
        try:
            result = self._write(call, old, _LIMITS.pack(soft, hard)) if old else 0
            is_known = call.answer(result)
        finally:
            if not is_known:
                # The next time, what was before is to be told.
                self._identity.set_limits(process, soft, hard, self._identity.of(call.pid))
        return Call.ANSWERED

    def getrlimit_32(self, call: Call) -> int:
        """ugetrlimit(2) of 32-bit programs."""
        return self._write_32(call, _INFINITY_32)

    def old_getrlimit_32(self, call: Call) -> int:
        """getrlimit(2) of 32-bit programs, whose numbers are signed."""
        return self._write_32(call, _OLD_INFINITY_32)

    def setrlimit_32(self, call: Call) -> int:
        """setrlimit(2) of 32-bit programs."""
        soft, hard = (
            INFINITY if value == _INFINITY_32 else value
            for value in self._read(call, call.arguments[1], _LIMITS_32)
        )
        self._set(call, call.pid, soft, hard)
        return 0

    def _set(self, call: Call, process: int, soft: int, hard: int) -> None:
        _, old_hard, _ = self._identity.state(process)
        if soft > hard:
            raise failure(errno.EINVAL)
        credentials = self._identity.of(call.pid)
        if hard > old_hard and not self._identity.may(call.pid, credentials, CAP_SYS_RESOURCE):
            raise failure(errno.EPERM)
        require_valid(call)
        try:
            self._identity.set_limits(process, soft, hard, credentials)
        except FullError:
            raise failure(errno.EPERM) from None

    def _check_permission(self, caller: int, process: int) -> None:
        """Raise EPERM where the caller must not touch another process's limits."""
        own, other = self._identity.of(caller), self._identity.of(process)
        same = set(other.uids[:3]) == {own.uids[0]} and set(other.gids[:3]) == {own.gids[0]}
        if not same and not self._identity.may(caller, own, CAP_SYS_RESOURCE):
            raise failure(errno.EPERM)

    def _read(self, call: Call, address: int, format_: struct.Struct) -> tuple[int, int]:
        data = self._memory.read(call.pid, address, format_.size)
        if data is None:
            raise failure(errno.EFAULT)
        soft, hard = format_.unpack(data)
        return soft, hard

    def _write(self, call: Call, address: int, data: bytes) -> int:
        return 0 if write(self._memory, call, (address, data)) else -errno.EFAULT

    def _write_32(self, call: Call, infinity: int) -> int:
        soft, hard, _ = self._identity.state(call.pid)
        packed = _LIMITS_32.pack(min(soft, infinity), min(hard, infinity))
        return self._write(call, call.arguments[1], packed)
