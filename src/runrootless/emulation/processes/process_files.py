"""Owners of the files of a process in /proc: its effective IDs, proc(5).

The files of a process that is not dumpable are root's.
"""

from __future__ import annotations

import os
import stat

from runrootless.emulation.callers.credential_table import INFINITY
from runrootless.emulation.callers.identity import Identity
from runrootless.emulation.paths.procfs import Procfs
from runrootless.emulation.processes.status_files import StatusFiles, open_text
from runrootless.linux.files import handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.call import Call
    from runrootless.emulation.callers.credential_table import State
    from runrootless.emulation.callers.credentials import Credentials

_PUBLIC_DIRECTORY = stat.S_IFDIR | 0o555
"""The mode of PID, PID/task and others, which belong to the process in any case: the
kernel's ``task_dump_owner``."""

_STATUS = b"status"
_LIMITS = b"limits"
_LIMITS_SIZE = 4096
# What ptrace(2) decides about: fs/proc/base.c, fs/proc/task_mmu.c.
_GUARDED = frozenset(
    (b"maps", b"smaps", b"smaps_rollup", b"numa_maps", b"environ", b"auxv", b"mem", b"pagemap")
    + (b"cwd", b"root", b"exe", b"fdinfo")
)
_GUARDED_DIRECTORIES = frozenset((b"fd", b"fdinfo", b"ns", b"map_files"))
_LIMIT_NAME = b"\nMax realtime timeout"


class ProcessFiles:
    """Finds the process that a file of procfs belongs to."""

    def __init__(self, procfs: Procfs, identity: Identity, status_files: StatusFiles) -> None:
        self._procfs = procfs
        self._identity = identity
        self._status_files = status_files
        self.concerns = procfs.concerns

    def owner(self, call: Call, file: int, by_path: bool) -> tuple[int, int] | None:
        """Return the effective IDs of the process that an open file is about, None for none.

        Who asks for a process's directory by its path, as ps(1) does, is about to read the
        status file in it, and is shown them there.
        """
        try:
            _, status, credentials, (_, _, dumpable) = self._process(file)
            is_public = status.st_mode == _PUBLIC_DIRECTORY
            if is_public and by_path:
                self._status_files.show(call, file, credentials)
        except (OSError, ValueError):
            return None
        if not dumpable and not is_public:
            return 0, 0
        return credentials.uids[1], credentials.gids[1]

    def holder(self, file: int) -> Credentials | None:
        """Return the credentials of the process that an open file is about, None for none."""
        try:
            return self._process(file)[2]
        except (OSError, ValueError):
            return None

    def open_copy(self, file: int) -> int | None:
        """Return a new descriptor to read what a process's status or limits file is to say.

        None where that is what the kernel says, and for all other files.
        """
        try:
            path = os.readlink(handle(file))
            if not path.endswith((_STATUS, _LIMITS)):
                return None
            path, _, credentials, (soft, hard, _) = self._process(file)
            directory, _, name = path.rpartition(b"/")
            if not os.path.basename(directory).isdigit():
                return None
            if name == _LIMITS:
                return _open_limits(file, soft, hard)
            return self._status_files.open_copy(file, credentials) if name == _STATUS else None
        except (OSError, ValueError):
            return None

    def guarding(self, file: int) -> tuple[Credentials, bool] | None:
        """Return whom one has to be allowed to trace, to use an open file or read a link.

        That is its process's credentials, and whether it can be dumped. None for other files.
        """
        try:
            if not self.concerns(os.fstat(file).st_dev):
                return None
            *_, directory, name = os.readlink(handle(file)).split(b"/")
            is_guarded = name in _GUARDED or directory in _GUARDED_DIRECTORIES
            return self.process(file) if is_guarded else None
        except (OSError, ValueError):
            return None

    def process(self, file: int) -> tuple[Credentials, bool]:
        """Return the credentials of an open file's process, and whether that can be dumped.

        Raises OSError, and ValueError where it is no process's file.
        """
        _, _, credentials, (_, _, dumpable) = self._process(file)
        return credentials, dumpable

    def _process(self, file: int) -> tuple[bytes, os.stat_result, Credentials, State]:
        """Return an open file's path and status, and its process's credentials and state.

        Raises OSError, and ValueError where it is no process's file.
        """
        path = os.readlink(handle(file))
        status = os.fstat(file)
        if not self.concerns(status.st_dev):
            raise ValueError(path)
        number = self._procfs.number(path, status)
        if self._procfs.is_agents(status.st_dev):
            pid = int(number)
            credentials, state = self._identity.of(pid), self._identity.state(pid)
        else:
            credentials, state = self._look_up(number)
        return path, status, credentials, state

    def _look_up(self, number: bytes) -> tuple[Credentials, State]:
        """Return what is known of the process or thread that the container's /proc has.

        By way of its file ``limits``, since the agent knows no process by the number that
        the container gives it. Raises OSError.
        """
        directory = self._procfs.directory(number)
        with open(directory + b"/limits", "rb", buffering=0) as file:
            text = file.read(_LIMITS_SIZE)
        soft = text.partition(_LIMIT_NAME)[2].split(maxsplit=1)[0]
        return self._identity.of_limit(INFINITY if soft == b"unlimited" else int(soft), directory)


def _open_limits(limits: int, soft: int, hard: int) -> int | None:
    """Return a new descriptor to read a copy of a limits file with another RLIMIT_RTTIME.

    ``limits`` is an O_PATH descriptor of the file, ``soft`` and ``hard`` are in microseconds.
    None where that would say what the file does. Raises OSError.
    """
    with open(handle(limits), "rb", buffering=0) as file:
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
