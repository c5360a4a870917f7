"""The hot path: what a file looks like, where that takes no closer look.

Most of all notifications are newfstatat(2), and most of them are let through. All that is
done for these is in one function that calls nothing but the kernel, on buffers of its own:
in the midst of a busy container the agent finds little of itself in the processor's caches,
so each function that it goes through takes its time.
"""

from __future__ import annotations

import errno
import os

from runrootless.emulation.call import UNDECIDED
from runrootless.emulation.credential_table import INFINITY
from runrootless.emulation.metadata import OF_PROCESS, SAME_FILE, SHOWN, UNKNOWN_FLAGS, Metadata
from runrootless.emulation.procfs import Procfs
from runrootless.linux.files import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    O_PATH,
    OPEN_HOW_SIZE,
    OPENAT2_CALL,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_XDEV,
    STAT_CALL,
    STAT_SIZE,
    Files,
    open_how,
)
from runrootless.linux.libc import address as address_of
from runrootless.linux.libc import get_errno
from runrootless.linux.limits import RLIMIT_RTTIME, get_soft_limit
from runrootless.linux.memory import PAGE_SIZE, SHORT, Memory, pack_area, read_areas, write_areas
from runrootless.linux.seccomp import is_valid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from runrootless.emulation.emulator import QuickHandler

_CURRENT = AT_FDCWD & 0xFFFFFFFF
_LAST_DESCRIPTOR = 0x7FFFFFFF
_IN_PAGE = PAGE_SIZE - 1
# What paths begin with that may lead each process elsewhere.
_OWN_PLACES = (b"/proc/", b"/dev/")
_UNKNOWN = b"?"
# Where the way may lead through a procfs.
_UNSURE = (errno.ELOOP, errno.EXDEV)
_WITHIN = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
_HOW, _HOW_NOFOLLOW = open_how(0, _WITHIN), open_how(os.O_NOFOLLOW, _WITHIN)


def quick_newfstatat(metadata: Metadata, procfs: Procfs, readers: Container[int]) -> QuickHandler:
    """Return a quick handler of fstatat(2), for one thread.

    Threads in ``readers`` are left to the handler.
    """
    memory, files = Memory(), Files()
    area, text, stat_address = memory.area, memory.text, files.stat_address
    data = files.stat_buffer
    here = pack_area(address_of(data), STAT_SIZE)
    plain, settled = metadata.plain, metadata.settled
    stat, number, current = STAT_CALL
    openat2, openat2_number, _ = OPENAT2_CALL
    unpack_same_file = SAME_FILE.unpack_from

    def quick(
        listener: int,
        identifier: bytes,
        pid: int,
        directory: int,
        address: int,
        buffer: int,
        flags: int,
    ) -> int | None:
        # As Memory.read_string and Paths.open_path do it.
        size = PAGE_SIZE - (address & _IN_PAGE)
        if size > SHORT:
            size = SHORT
        if read_areas(pid, area, 1, pack_area(address, size), 1, 0) <= 0:
            return UNDECIDED
        path = text.value
        start = b""
        shown: bytes | None = _UNKNOWN
        if path:
            if len(path) >= size:
                return UNDECIDED
            nofollow = flags & AT_SYMLINK_NOFOLLOW
            if path.startswith(b"/"):
                if path.startswith(_OWN_PLACES):
                    return UNDECIDED
                name = path
            else:
                directory &= 0xFFFFFFFF
                if directory == _CURRENT:
                    start = b"%d/cwd" % pid
                elif directory > _LAST_DESCRIPTOR:
                    return UNDECIDED
                else:
                    start = b"%d/fd/%d" % (pid, directory)
                name = b"%b/%b" % (start, path)
        elif not flags & AT_EMPTY_PATH or directory > _LAST_DESCRIPTOR:
            return UNDECIDED
        else:
            name = start = b"%d/fd/%d" % (pid, directory)
            nofollow = 0
        if pid in readers or flags & UNKNOWN_FLAGS:
            return UNDECIDED
        if not path or not procfs.shows_agent:
            # No way leads to what is the agent's own, so that the kernel may be asked by name.
            if stat(number, current, name, stat_address, nofollow) < 0:
                if not start:
                    # As _fails_for_caller does it.
                    how = _HOW_NOFOLLOW if nofollow else _HOW
                    found = openat2(openat2_number, current, path, how, OPEN_HOW_SIZE)
                    if found < 0 and get_errno() not in _UNSURE:
                        return None
                    if found >= 0:
                        os.close(found)
                    return UNDECIDED
                if path and not _fails_for_caller(files, procfs, start, path, nofollow):
                    return UNDECIDED
                return None
            file, changed = unpack_same_file(data)
            if plain.get(file) == changed:
                return None
            known = settled.get(file)
            if known is not None and known[0] == changed:
                shown = known[1]
        if shown is _UNKNOWN:
            shown = _look(metadata, procfs, files, start, path, nofollow)
        if shown is None:
            return None
        if shown is OF_PROCESS:
            return UNDECIDED
        data[SHOWN] = shown
        there = pack_area(buffer, STAT_SIZE)
        if not is_valid(listener, identifier):
            return -errno.EINTR
        # Right after: later the memory may be the caller's own again.
        return 0 if write_areas(pid, here, 1, there, 1, 0) == STAT_SIZE else -errno.EFAULT

    return quick


def _look(
    metadata: Metadata, procfs: Procfs, files: Files, start: bytes, path: bytes, nofollow: int
) -> bytes | None:
    """Return what to show of a file that is held meanwhile, as ``Metadata.shown`` does.

    None also where there is none, and OF_PROCESS where it takes another way to find the right
    one; ``files`` has what the kernel says of it.
    """
    file = _resolve(files, start, path, nofollow, RESOLVE_NO_MAGICLINKS)
    if file < 0:
        return None if _fails_for_caller(files, procfs, start, path, nofollow) else OF_PROCESS
    try:
        if files.stat(file) < 0 or procfs.misleads(file, files.found()[0]):
            return OF_PROCESS
        return metadata.shown(file, files.stat_buffer)
    finally:
        os.close(file)


def _fails_for_caller(
    files: Files, procfs: Procfs, start: bytes, path: bytes, nofollow: int
) -> bool:
    """Return whether a path fails for its caller as well, as ``Paths`` finds out."""
    result = _resolve(files, start, path, nofollow, RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV, procfs)
    if result >= 0:
        os.close(result)
    return result < 0 and -result not in _UNSURE


def _resolve(
    files: Files,
    start: bytes,
    path: bytes,
    nofollow: int,
    resolve: int,
    procfs: Procfs | None = None,
) -> int:
    """Return a descriptor of a file, or a negative error number.

    ``start`` is a name of where a path that is not absolute begins, which with ``procfs`` is
    ELOOP if that is in one. Without a path the file is the start itself.
    """
    flags = os.O_NOFOLLOW if nofollow else 0
    if not start:
        return files.resolve(AT_FDCWD, path, flags, resolve)
    try:
        directory = os.open(start, O_PATH | os.O_CLOEXEC)
    except OSError as error:
        return -(error.errno or errno.EIO)
    if not path:
        return directory
    try:
        if procfs is not None and procfs.contains(directory, os.fstat(directory).st_dev):
            return -errno.ELOOP
        return files.resolve(directory, path, flags, resolve)
    finally:
        os.close(directory)


def for_root_only(quick: QuickHandler) -> QuickHandler:
    """Return a quick handler that leaves what users call to the handler."""

    def quick_for_root(listener: int, identifier: bytes, pid: int, *arguments: int) -> int | None:
        if get_soft_limit(pid, RLIMIT_RTTIME) != INFINITY:
            return UNDECIDED
        return quick(listener, identifier, pid, *arguments)

    return quick_for_root
