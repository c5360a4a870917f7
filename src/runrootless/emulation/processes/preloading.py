"""Keeping the fast path's object from programs that cannot load it: their loader would say so.

LD_PRELOAD names it to every program. Where a process is about to execute one that is for another
machine, that sees other files, or whose sanitizer wants to be the first library, the name is taken
out of the environment that it passes, in its memory. If it shares that with others (vfork(2)), it
is gone there as well, and what they execute later is slower.
"""

from __future__ import annotations

import os
import struct

from runrootless.emulation.call import Call, write
from runrootless.emulation.fast_state import PATH
from runrootless.emulation.handlers import Shared
from runrootless.linux import elf
from runrootless.linux.files import AT_FDCWD, handle
from runrootless.linux.seccomp import AUDIT_ARCHITECTURES, KEY, NUMBER

_PATH = PATH.encode()
_VARIABLE = b"LD_PRELOAD="
_SEPARATORS = b" :"
_POINTER = struct.Struct("=Q")
_ENTRIES_LIMIT = 16384
_POINTERS_AT_ONCE = 32
_ENTRY_LIMIT = 65536
_SANITIZERS = (b"libasan.", b"libtsan.", b"liblsan.", b"libhwasan.", b"libclang_rt.")
_KNOWN_LIMIT = 1024
_MACHINE = os.uname().machine


class Preloading:
    """Fits environments of one container; ``place`` is st_dev and st_ino of the object."""

    def __init__(self, shared: Shared, place: tuple[int, int]) -> None:
        self._memory = shared.memory
        self._paths = shared.paths
        self._place = place
        shared.programs.preload(_PATH, place)
        # Of programs that have not changed, by device, inode and time: whether they can load it.
        self._known: dict[tuple[int, int, int], bool] = {}

    def fit(self, call: Call, program: int, status: os.stat_result, environment: int) -> bool:
        """Take the object out of an environment unless the program can load it.

        Return whether it can. ``program`` is a descriptor of what the kernel executes, ``status``
        what stat(2) says of it, and ``environment`` an address of the caller's. Raises OSError,
        also that of an interrupted call.
        """
        _, key = KEY.unpack(call.notification)
        if NUMBER.unpack(key)[1] != AUDIT_ARCHITECTURES[_MACHINE]:
            # A 32-bit program was not given it.
            return False
        fits = self._is_there(call.pid) and self._can_load(program, status)
        if not fits:
            self._take_out(call, environment)
        return fits

    def _is_there(self, pid: int) -> bool:
        """Return whether a process finds the object under its name."""
        try:
            file = self._paths.open_path(pid, AT_FDCWD, _PATH, 0)
        except OSError:
            return False
        try:
            status = os.fstat(file)
        finally:
            os.close(file)
        return (status.st_dev, status.st_ino) == self._place

    def _can_load(self, program: int, status: os.stat_result) -> bool:
        key = status.st_dev, status.st_ino, status.st_ctime_ns
        found = self._known.get(key)
        if found is None:
            found = _can_load(program)
            if len(self._known) >= _KNOWN_LIMIT:
                self._known.clear()
            self._known[key] = found
        return found

    def _take_out(self, call: Call, environment: int) -> None:
        for address in self._entries(call.pid, environment):
            text = self._memory.read_string(call.pid, address, _ENTRY_LIMIT) or b""
            if text.startswith(_VARIABLE):
                for start, data in _cuts(text.removeprefix(_VARIABLE)):
                    write(self._memory, call, (address + len(_VARIABLE) + start, data))

    def _entries(self, pid: int, environment: int) -> list[int]:
        """Return the addresses of the strings of an environment."""
        found: list[int] = []
        while environment and len(found) < _ENTRIES_LIMIT:
            # Not beyond the page: the next one may not be there.
            room = (4096 - environment % 4096) // _POINTER.size or 1
            count = min(room, _POINTERS_AT_ONCE)
            data = self._memory.read(pid, environment, count * _POINTER.size)
            if data is None:
                break
            for (pointer,) in _POINTER.iter_unpack(data):
                if not pointer:
                    return found
                found.append(pointer)
            environment += len(data)
        return found


def _cuts(value: bytes) -> list[tuple[int, bytes]]:
    """Return what is to be written where, so that LD_PRELOAD does not name the object.

    Where it is the last name that is one byte: whoever reads it meanwhile sees either.
    """
    cuts: list[tuple[int, bytes]] = []
    start = 0
    while (start := value.find(_PATH, start)) >= 0:
        end = start + len(_PATH)
        is_whole = start == 0 or value[start - 1] in _SEPARATORS
        if is_whole and end == len(value):
            cuts.append((max(0, start - 1), b"\0"))
        elif is_whole and value[end] in _SEPARATORS:
            cuts.append((start, b":" * len(_PATH)))
        start = end
    return cuts


def _can_load(program: int) -> bool:
    """Return whether a program can load the object. Raises OSError where it cannot be read."""
    fd = os.open(handle(program), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        needed = elf.needed(fd, _MACHINE)
    except ValueError:
        return False
    finally:
        os.close(fd)
    return not any(name.startswith(_SANITIZERS) for name in needed)
