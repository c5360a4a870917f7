"""socketcall(2): how most 32-bit programs on x86_64 make the calls about sockets."""

from __future__ import annotations

import struct

from runrootless.emulation.call import Call
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.messages.receiving import Receiving
from runrootless.emulation.messages.sending import Sending
from runrootless.emulation.messages.sockets import Sockets
from runrootless.emulation.table import (
    SYS_BIND,
    SYS_GETSOCKOPT,
    SYS_RECVMMSG,
    SYS_RECVMSG,
    SYS_SENDMMSG,
    SYS_SENDMSG,
    SYS_SETSOCKOPT,
)

_MASK = 0xFFFFFFFF
_WORD = struct.Struct("=I")
_REGISTERS = 6


class Socketcall(Handlers):
    """The handler of socketcall(2): it passes the call on to the handler of the call meant."""

    def __init__(
        self, shared: Shared, sockets: Sockets, sending: Sending, receiving: Receiving
    ) -> None:
        super().__init__(shared)
        # Each with the number of its arguments.
        self._calls = {
            SYS_BIND: (sockets.bind, 3),
            SYS_SETSOCKOPT: (receiving.setsockopt, 5),
            SYS_GETSOCKOPT: (sockets.getsockopt, 5),
            SYS_SENDMSG: (sending.sendmsg_32, 3),
            SYS_RECVMSG: (receiving.recvmsg_32, 3),
            SYS_RECVMMSG: (receiving.recvmmsg_32, 5),
            SYS_SENDMMSG: (sending.sendmmsg_32, 4),
        }

    def socketcall(self, call: Call) -> int | None:
        """socketcall(2)."""
        number, address = call.arguments[:2]
        found = self._calls.get(number & _MASK)
        if found is None:
            return None
        handler, count = found
        data = self._memory.read(call.pid, address, count * _WORD.size)
        if data is None:
            return None
        arguments = [value for (value,) in _WORD.iter_unpack(data)]
        call.arguments = arguments + [0] * (_REGISTERS - count)
        return handler(call)
