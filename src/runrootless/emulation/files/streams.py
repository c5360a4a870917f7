"""Owners of standard streams and terminals.

A runtime gives the standard streams of a process that it starts, and its terminal, to the
process's user. A terminal that a program makes belongs to the process that opened /dev/ptmx, and
to the group that devpts was mounted with.
"""

from __future__ import annotations

import os
import stat
import struct
from fcntl import ioctl

from runrootless.emulation.call import Call
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.stores.record import Record
from runrootless.linux.files import O_PATH, handle, is_devpts, open_directory

_TERMINALS_MASTER = os.makedev(5, 2)
_NULL = os.makedev(1, 3)
# UNIX98_PTY_SLAVE_MAJOR of <linux/major.h>, and as many as there are.
_TERMINAL_MAJORS = range(136, 144)
# <asm-generic/ioctls.h>.
_TIOCGPTN = 0x80045430
_NUMBER = struct.Struct("=I")
# What fs/devpts/inode.c adds to the number of a terminal for its inode.
_FIRST_INODE = 3
_STREAMS = range(3)


class Streams(Handlers):
    """Gives standard streams and terminals to their users.

    ``group`` is the one of terminals in the container's devpts, None for their openers'.
    """

    def __init__(self, shared: Shared, group: int | None) -> None:
        super().__init__(shared)
        self._group = group

    def give(self, pid: int) -> None:
        """Give the standard streams of a process that a runtime has started to its user.

        As runc does: fixStdioPermissions() in libcontainer/init_linux.go.
        """
        user = self._identity.of(pid).uids[1]
        for number in _STREAMS:
            try:
                file = os.open(b"%d/fd/%d" % (pid, number), O_PATH | os.O_CLOEXEC)
            except OSError:
                # There is none, or it is the runtime itself that nobody may look at.
                continue
            try:
                self._give(file, user)
            finally:
                os.close(file)

    def _give(self, file: int, user: int) -> None:
        identity = self._files.identity(file)
        if identity is None:
            return
        mode, device, inode, birth = identity
        special = os.fstat(file).st_rdev if stat.S_ISCHR(mode) else 0
        group = self._group or 0 if os.major(special) in _TERMINAL_MAJORS else 0
        if special != _NULL and (user or group):
            self._ownership.give(device, inode, birth, Record(user, group))

    def open_master(self, call: Call, file: int, flags: int, status: os.stat_result) -> int | None:
        """Return a new descriptor of a new terminal's master; None where a file makes none.

        The terminal belongs to the caller. Raises OSError as open(2).
        """
        if status.st_rdev != _TERMINALS_MASTER or not stat.S_ISCHR(status.st_mode):
            return None
        device = _device(file, status)
        if device is None:
            return None
        who = self._identity.of(call.pid)
        fd = os.open(handle(file), flags | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            (number,) = _NUMBER.unpack(ioctl(fd, _TIOCGPTN, bytes(_NUMBER.size)))
        except OSError:
            os.close(fd)
            raise
        group = who.gids[3] if self._group is None else self._group
        self._ownership.give(device, _FIRST_INODE + number, 0, Record(who.uids[3], group))
        return fd


def _device(master: int, status: os.stat_result) -> int | None:
    """Return st_dev of the devpts that a master's terminals are in, None where there is none.

    It is the master's own, or what is called ``pts`` beside it: path_pts() in fs/namei.c.
    """
    if is_devpts(master):
        return status.st_dev
    directory = open_directory(os.path.dirname(os.readlink(handle(master))) + b"/pts")
    if directory < 0:
        return None
    try:
        return os.fstat(directory).st_dev if is_devpts(directory) else None
    finally:
        os.close(directory)
