"""What a system call takes on each architecture: instruction, registers, numbers, structures."""

from __future__ import annotations

import os
import struct

from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# As a call that is to be made again after a signal leaves them: <linux/errno.h>. The first three
# are the same call again, the last one is restart_syscall(2).
_RESTARTS = (-512, -513, -514)
_RESTART_BLOCK = -516
_FIRST_ERROR = -4095


class Machine:
    """One architecture, as registers of a thread (NT_PRSTATUS) show it.

    ``size`` is that of all registers in bytes, ``word`` the format of one. ``instruction`` makes a
    system call. ``counter`` is the place of the program counter among the registers,
    ``number`` that of the call's number, ``arguments`` and ``result`` those of these,
    and ``begun`` that of what tells whether the thread is in a call, -1 where nothing does.
    ``restarts`` are the numbers of restart_syscall(2) by the instruction that makes the call, and
    ``abi`` has the bits of a number that it shares with what is made again.
    ``numbers`` are those of the calls that are made; ``program`` is the format of
    ``struct sock_fprog``.
    """

    __slots__ = (
        "abi",
        "arguments",
        "begun",
        "counter",
        "instruction",
        "number",
        "numbers",
        "program",
        "restarts",
        "result",
        "size",
        "word",
    )

    def __init__(
        self,
        size: int,
        word: str,
        instruction: bytes,
        counter: int,
        number: int,
        arguments: Sequence[int],
        result: int,
        begun: int,
        numbers: dict[str, int],
        restarts: dict[bytes, int],
        program: str,
        abi: int = 0,
    ) -> None:
        self.size = size
        self.word = word
        self.instruction = instruction
        self.counter = counter
        self.number = number
        self.arguments = arguments
        self.result = result
        self.begun = begun
        self.numbers = numbers
        self.restarts = restarts
        self.abi = abi
        self.program = struct.Struct(program)

    def values(self, registers: bytes) -> list[int]:
        """Return the registers as numbers without a sign."""
        count = self.size // struct.calcsize(self.word)
        return list(struct.unpack(f"={count}{self.word}", registers))

    def packed(self, values: Sequence[int]) -> bytes:
        """Return what ``values`` has taken apart."""
        return struct.pack(f"={len(values)}{self.word}", *values)

    def for_call(self, registers: bytes, where: int, name: str, arguments: Sequence[int]) -> bytes:
        """Return registers with which the instruction at an address makes a call."""
        values = self.values(registers)
        values[self.counter] = where
        limit = 1 << 8 * struct.calcsize(self.word)
        values[self.number] = self.numbers[name]
        if self.begun >= 0:
            # The kernel is not to make again what was interrupted.
            values[self.begun] = limit - 1
        for place, argument in zip(self.arguments, arguments):
            values[place] = argument % limit
        return self.packed(values)

    def result_of(self, registers: bytes) -> int:
        """Return what a call has returned, a negative error number included."""
        value = self.values(registers)[self.result]
        signed = self._signed(value)
        # An address may be in the upper half.
        return signed if _FIRST_ERROR <= signed < 0 else value

    def at(self, registers: bytes, where: int) -> bytes:
        """Return registers with which a thread goes on at an address."""
        values = self.values(registers)
        values[self.counter] = where
        return self.packed(values)

    def resumed(self, registers: bytes, before: bytes) -> bytes:
        """Return the registers of a thread stopped in a call, as they are when it makes that again.

        ``before`` is the instruction that the program counter is behind. The kernel does this
        itself where it has left a stop without other calls in between.
        """
        values = self.values(registers)
        if self.begun < 0 or self._signed(values[self.begun]) < 0:
            return registers
        result = self._signed(values[self.result])
        if result in _RESTARTS:
            values[self.result] = values[self.begun]
        elif result == _RESTART_BLOCK:
            values[self.result] = self.restarts.get(before, self.restarts[self.instruction])
            values[self.result] |= values[self.begun] & self.abi
        else:
            return registers
        values[self.counter] -= len(self.instruction)
        values[self.begun] = (1 << 8 * struct.calcsize(self.word)) - 1
        return self.packed(values)

    def _signed(self, value: int) -> int:
        bits = 8 * struct.calcsize(self.word)
        return value - (1 << bits) if value >> bits - 1 else value


# <asm/unistd.h>; the registers as struct user_regs_struct of <sys/user.h> has them.
_X86_64 = Machine(
    27 * 8,
    "Q",
    b"\x0f\x05",
    counter=16,
    number=10,
    arguments=(14, 13, 12, 7, 9, 8),
    result=10,
    begun=15,
    numbers={"mmap": 9, "munmap": 11, "close": 3, "prctl": 157, "seccomp": 317},
    # A 64-bit program may make 32-bit calls.
    restarts={b"\x0f\x05": 219, b"\xcd\x80": 0},
    program="=H6xQ",
    # __X32_SYSCALL_BIT.
    abi=1 << 30,
)
_I386 = Machine(
    17 * 4,
    "I",
    b"\xcd\x80",
    counter=12,
    number=6,
    arguments=(0, 1, 2, 3, 4, 5),
    result=6,
    begun=11,
    numbers={"mmap": 192, "munmap": 91, "close": 6, "prctl": 172, "seccomp": 354},
    restarts={b"\xcd\x80": 0},
    program="=H2xI",
)
_AARCH64 = Machine(
    34 * 8,
    "Q",
    b"\x01\x00\x00\xd4",
    counter=32,
    number=8,
    arguments=(0, 1, 2, 3, 4, 5),
    result=0,
    begun=-1,
    numbers={"mmap": 222, "munmap": 215, "close": 57, "prctl": 167, "seccomp": 277},
    restarts={b"\x01\x00\x00\xd4": 128},
    program="=H6xQ",
)
_OF_HOST = {"x86_64": (_X86_64, _I386), "aarch64": (_AARCH64,)}


def of_registers(registers: bytes) -> Machine:
    """Return the architecture whose registers these are.

    Raises Error for one in which no calls can be made.
    """
    for machine in _OF_HOST.get(os.uname().machine, ()):
        if machine.size == len(registers):
            return machine
    raise Error("the process is of an architecture whose system calls are not emulated")
