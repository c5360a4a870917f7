"""The hot path: what a file looks like, where that takes no closer look.

Most of all notifications are newfstatat(2), and most of them are let through. All that is
done for these is in one function that calls nothing but the kernel, on buffers of its own:
in the midst of a busy container the agent finds little of itself in the processor's caches,
so each function that it goes through takes its time.
"""

from __future__ import annotations

import errno
import struct

from runrootless.emulation.call import UNDECIDED
from runrootless.emulation.credential_table import INFINITY
from runrootless.emulation.metadata import OF_PROCESS, SAME_FILE, SHOWN, UNKNOWN_FLAGS, Metadata
from runrootless.emulation.paths import OWN_PLACES
from runrootless.linux.files import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    STAT_CALL,
    Files,
)
from runrootless.linux.limits import RLIMIT_RTTIME, get_soft_limit
from runrootless.linux.memory import PAGE_SIZE, SHORT, Memory, pack_area, read_areas
from runrootless.linux.seccomp import IDENTIFIER, is_valid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Container

    from runrootless.emulation.emulator import QuickHandler

_PROCESS = struct.Struct("=8xI68x")
# The process ID, directory, path, buffer and flags of newfstatat(2) in a notification.
_NEWFSTATAT = struct.Struct("=8xI20xQQQQ16x")
_CURRENT = AT_FDCWD & 0xFFFFFFFF
_LAST_DESCRIPTOR = 0x7FFFFFFF
_IN_PAGE = PAGE_SIZE - 1


def quick_newfstatat(metadata: Metadata, readers: Container[int], lock: LockType) -> QuickHandler:
    """Return a quick handler of fstatat(2), for one thread.

    Threads in ``readers`` are left to the handler. ``lock`` is taken where ``metadata`` is
    asked.
    """
    memory, files = Memory(), Files()
    area, text, stat_address = memory.area, memory.text, files.stat_address
    data = files.stat_buffer
    plain = metadata.plain
    stat, number, current = STAT_CALL
    unpack, unpack_same_file = _NEWFSTATAT.unpack, SAME_FILE.unpack_from

    def quick(notification: bytes | bytearray, listener: int) -> int | None:
        pid, directory, address, buffer, flags = unpack(notification)
        # As Memory.read_string and Paths.name_of do it.
        size = PAGE_SIZE - (address & _IN_PAGE)
        if size > SHORT:
            size = SHORT
        if read_areas(pid, area, 1, pack_area(address, size), 1, 0) <= 0:
            return UNDECIDED
        path = text.value
        if path:
            if len(path) >= size:
                return UNDECIDED
            nofollow = flags & AT_SYMLINK_NOFOLLOW
            if path.startswith(b"/"):
                if path.startswith(OWN_PLACES):
                    return UNDECIDED
                name = path
            else:
                directory &= 0xFFFFFFFF
                if directory == _CURRENT:
                    name = b"%d/cwd/%b" % (pid, path)
                elif directory > _LAST_DESCRIPTOR:
                    return UNDECIDED
                else:
                    name = b"%d/fd/%d/%b" % (pid, directory, path)
        elif not flags & AT_EMPTY_PATH or directory > _LAST_DESCRIPTOR:
            return UNDECIDED
        else:
            name = b"%d/fd/%d" % (pid, directory)
            nofollow = 0
        if pid in readers or flags & UNKNOWN_FLAGS:
            return UNDECIDED
        if stat(number, current, name, stat_address, nofollow) < 0:
            return None
        file, changed = unpack_same_file(data)
        if plain.get(file) == changed:
            return None
        with lock:
            shown = metadata.shown(name, nofollow, data)
        if shown is None:
            return None
        if shown is OF_PROCESS:
            return UNDECIDED
        data[SHOWN] = shown
        if not is_valid(listener, notification[IDENTIFIER]):
            return -errno.EINTR
        return 0 if memory.write(pid, buffer, data) else -errno.EFAULT

    return quick


def for_root_only(quick: QuickHandler) -> QuickHandler:
    """Return a quick handler that leaves what users call to the handler."""

    def quick_for_root(notification: bytes | bytearray, listener: int) -> int | None:
        (pid,) = _PROCESS.unpack(notification)
        if get_soft_limit(pid, RLIMIT_RTTIME) != INFINITY:
            return UNDECIDED
        return quick(notification, listener)

    return quick_for_root
