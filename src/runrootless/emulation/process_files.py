"""Whose the files of a process in /proc are: its effective IDs, proc(5).

Those of a process that cannot be dumped are root's.
"""

from __future__ import annotations

import os
import stat

from runrootless.emulation.credential_table import INFINITY
from runrootless.emulation.identity import Identity
from runrootless.emulation.status_files import StatusFiles, open_text
from runrootless.linux.files import AT_SYMLINK_NOFOLLOW, Files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.call import Call
    from runrootless.emulation.credential_table import State
    from runrootless.emulation.credentials import Credentials

_PUBLIC_DIRECTORY = stat.S_IFDIR | 0o555
"""The mode of PID, PID/task and others, which belong to the process in any case: the
kernel's ``task_dump_owner``."""

_STATUS = b"status"
_LIMITS = b"limits"
_LIMITS_SIZE = 4096
_LIMIT_NAME = b"\nMax realtime timeout"


class ProcessFiles:
    """Finds the process that a file of procfs belongs to."""

    def __init__(self, files: Files, identity: Identity, status_files: StatusFiles) -> None:
        self._files = files
        self._identity = identity
        self._status_files = status_files
        self._agent_device = self._device = -1

    def look(self) -> None:
        """Find out what is procfs, once the agent has joined the container.

        ``/proc`` is the container's, and the working directory the agent's /proc.
        """
        self._agent_device = os.stat(".").st_dev
        try:
            self._device = os.stat("/proc").st_dev
        except OSError:
            self._device = self._agent_device
        if self._device == os.stat("/").st_dev:
            # A plain directory: nothing is mounted on it.
            self._device = self._agent_device

    def concerns(self, device: int) -> bool:
        """Return whether a file on this device may be a process's."""
        return device == self._device or device == self._agent_device

    def owner(self, call: Call, name: bytes, flags: int) -> tuple[int, int] | None:
        """Return the effective IDs of the process that a file is about, None if there is none.

        Who asks for a process's directory by its path, as ps(1) does, is about to read the
        status file in it, and is shown them there.
        """
        if not flags and _is_open_for_none(name):
            return None
        fd = self._files.open_path(name, flags)
        if fd < 0:
            return None
        try:
            _, status, credentials, (_, _, dumpable) = self._process(fd)
            is_public = status.st_mode == _PUBLIC_DIRECTORY
            if is_public and name.startswith(b"/") and not flags & AT_SYMLINK_NOFOLLOW:
                self._status_files.show(call, fd, credentials)
        except (OSError, ValueError):
            return None
        finally:
            os.close(fd)
        if not dumpable and not is_public:
            return 0, 0
        return credentials.uids[1], credentials.gids[1]

    def open_copy(self, name: bytes, flags: int) -> int | None:
        """Return a new descriptor to read what a process's status or limits file is to say.

        None where that is what the kernel says, and for all other files.
        """
        if not name.endswith((_STATUS, _LIMITS)):
            return None
        fd = self._files.open_path(name, flags)
        if fd < 0:
            return None
        try:
            path, _, credentials, (soft, hard, _) = self._process(fd)
            directory, _, file = path.rpartition(b"/")
            if not os.path.basename(directory).isdigit():
                return None
            if file == _LIMITS:
                return _open_limits(fd, soft, hard)
            return self._status_files.open_copy(fd, credentials) if file == _STATUS else None
        except (OSError, ValueError):
            return None
        finally:
            os.close(fd)

    def _process(self, fd: int) -> tuple[bytes, os.stat_result, Credentials, State]:
        """Return an open file's path and status, and its process's credentials and state.

        Raises OSError, and ValueError where it is no process's file.
        """
        path = os.readlink(b"self/fd/%d" % fd)
        status = os.fstat(fd)
        if not self.concerns(status.st_dev):
            # Not what its name led to before: a file in there might never open.
            raise ValueError(path)
        if status.st_dev == self._agent_device:
            # The number in the path is the agent's too, wherever this is mounted.
            pid = int(os.path.basename(_thread(path)))
            credentials, state = self._identity.of(pid), self._identity.state(pid)
        else:
            credentials, state = self._look_up(path)
        return path, status, credentials, state

    def _look_up(self, path: bytes) -> tuple[Credentials, State]:
        """Return what is known of the process or thread whose file is at ``path``.

        By way of its file ``limits``, since the agent knows no process by the number that
        the container gives it. Raises OSError, and ValueError where it is no process's file.
        """
        directory = _thread(path)
        with open(directory + b"/limits", "rb", buffering=0) as file:
            text = file.read(_LIMITS_SIZE)
        soft = text.partition(_LIMIT_NAME)[2].split(maxsplit=1)[0]
        return self._identity.of_limit(INFINITY if soft == b"unlimited" else int(soft), directory)


def _open_limits(limits: int, soft: int, hard: int) -> int | None:
    """Return a new descriptor to read a copy of a limits file with another RLIMIT_RTTIME.

    ``limits`` is an O_PATH descriptor of the file, ``soft`` and ``hard`` are in microseconds.
    None where that would say what the file does. Raises OSError.
    """
    with open(b"self/fd/%d" % limits, "rb", buffering=0) as file:
        text = file.read(_LIMITS_SIZE)
    before, name, rest = text.partition(_LIMIT_NAME)
    line, end, after = rest.partition(b"\n")
    # As proc_pid_limits() in fs/proc/base.c has it.
    new = b"%-5s %-20s %-20s %-10s" % (b"", _in_words(soft), _in_words(hard), b"us")
    if line == new:
        return None
    return open_text("limits", before + name + new + end + after)


def _in_words(limit: int) -> bytes:
    return b"unlimited" if limit == INFINITY else b"%d" % limit


def _is_open_for_none(name: bytes) -> bool:
    """Return whether ``name`` is a descriptor's, and what is open there no process's file.

    As /proc/filesystems, which most of the coreutils open.
    """
    directory, _, number = name.rpartition(b"/")
    if not (directory.endswith(b"/fd") and number.isdigit()):
        return False
    try:
        _thread(os.readlink(name))
    except ValueError:
        return True
    except OSError:
        pass
    return False


def _thread(path: bytes) -> bytes:
    """Return the directory of the thread or process whose file is at ``path``.

    Raises ValueError if it is none's.
    """
    parts = path.split(b"/")
    for at, part in enumerate(parts):
        if part.isdigit():
            if parts[at + 1 : at + 2] == [b"task"] and parts[at + 2 : at + 3]:
                # A thread has a directory of its own beside those of processes, too.
                part = parts[at + 2]
            return b"/".join([*parts[:at], part])
    raise ValueError(path)
