"""Programs that change who runs them: execve(2) of set-user-ID and set-group-ID files.

The kernel ignores the bits (one mapped ID, no_new_privs), so what the credentials are to become
is noted before it is asked to execute the file, and counts when it has (``executions``).
"""

from __future__ import annotations

import errno
import os
import stat

from runrootless.emulation.call import Call, failure
from runrootless.emulation.callers.credentials import CAP_SYS_PTRACE
from runrootless.emulation.callers.executions import SetId
from runrootless.emulation.handlers import Handlers, Shared
from runrootless.emulation.owners.devices import Devices
from runrootless.emulation.processes.preloading import Preloading
from runrootless.emulation.processes.status_files import StatusFiles
from runrootless.emulation.stores.record import NOTHING
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, handle
from runrootless.linux.processes import read_status, status_fields

_SET_ID = stat.S_ISUID | stat.S_ISGID
_ELF_MAGIC = b"\x7fELF"
_SCRIPT = b"#!"
# BINPRM_BUF_SIZE of <linux/binfmts.h>, and how many files fs/exec.c looks at, one behind another.
_BEGINNING = 256
_INTERPRETERS = 6


class Execution(Handlers):
    """Handlers of execve(2) and execveat(2)."""

    def __init__(
        self,
        shared: Shared,
        devices: Devices,
        status_files: StatusFiles,
        preloading: Preloading | None,
    ) -> None:
        super().__init__(shared)
        self._preloading = preloading
        self._programs = shared.programs
        self._devices = devices
        self._status_files = status_files

    def execve(self, call: Call) -> None:
        """execve(2)."""
        self._execute(call, AT_FDCWD, call.arguments[0], 0, call.arguments[2])

    def execveat(self, call: Call) -> None:
        """execveat(2)."""
        flags = call.arguments[4] & AT_EMPTY_PATH
        self._execute(call, call.descriptor(0), call.arguments[1], flags, call.arguments[3])

    def _execute(self, call: Call, directory: int, path: int, flags: int, environment: int) -> None:
        # Before a program that mounts may be in the way of.
        if self._devices.mounted:
            self._devices.tidy()
        self._status_files.leave_ended()
        bits = None
        try:
            file = self._paths.open(call, directory, path, flags)
            bits = self._look(call, file, environment)
            if bits is not None and self._is_traced(call.pid):
                bits = None
        except OSError:
            # The kernel will find the same and tell the caller, unless the path changes.
            pass
        self._identity.change_by_exec(call, bits)

    def _look(self, call: Call, file: int, environment: int) -> SetId | None:
        """Return what the set-ID bits make of the caller of a program, None if they do not count.

        The environment of the call is made to fit. ``file``, a descriptor, is closed. What counts
        of a script is its interpreter. Raises OSError as execve(2), and where a file cannot be
        read.
        """
        named = True
        try:
            for _ in range(_INTERPRETERS):
                status = os.fstat(file)
                if not stat.S_ISREG(status.st_mode):
                    return None
                beginning = _beginning(file)
                if not beginning.startswith(_SCRIPT):
                    break
                following = self._paths.open_path(call.pid, AT_FDCWD, _interpreter(beginning), 0)
                os.close(file)
                file = following
                named = False
            else:
                return None
            is_binary = beginning.startswith(_ELF_MAGIC)
            is_fit = self._preloading is None or self._preloading.fit(
                call, file, status, environment
            )
            if named and is_binary and is_fit:
                self._programs.know(status.st_dev, status.st_ino, status.st_ctime_ns)
            return self._set_id(file, status) if is_binary else None
        finally:
            os.close(file)

    def _is_traced(self, pid: int) -> bool:
        """Return whether somebody traces a thread who may not trace everybody.

        ``LSM_UNSAFE_PTRACE``: execve(2), of set-user-ID programs. Raises OSError.
        """
        tracer = int(status_fields(read_status(pid), b"TracerPid")[0])
        if not tracer:
            return False
        credentials = self._identity.of(tracer)
        try:
            return not self._identity.may(tracer, credentials, CAP_SYS_PTRACE)
        except OSError:
            # It has ended, and nobody traces any more.
            return False

    def _set_id(self, file: int, status: os.stat_result) -> SetId | None:
        """Return what the bits of a program make of a process; None where they do not count.

        Raises OSError.
        """
        mode = status.st_mode
        if not (mode & _SET_ID and mode & 0o111) or _ignores_set_id(file, status.st_dev):
            return None
        record = self._ownership.find(file, mode, status.st_dev, status.st_ino) or NOTHING
        # Without the execute bit of the group, set-group-ID means something else.
        set_group = mode & stat.S_ISGID and mode & stat.S_IXGRP
        owner = record.uid if mode & stat.S_ISUID else None
        group = record.gid if set_group else None
        return SetId(owner, group, (status.st_dev, status.st_ino), record.uid)


def _beginning(file: int) -> bytes:
    """Return what the kernel finds out by how a file is to be executed. Raises OSError."""
    fd = os.open(handle(file), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.pread(fd, _BEGINNING, 0)
    finally:
        os.close(fd)


def _interpreter(script: bytes) -> bytes:
    """Return the path of the interpreter that a script begins with: fs/binfmt_script.c.

    Raises OSError: ENOEXEC where there is none.
    """
    line = script[len(_SCRIPT) :].partition(b"\n")[0].partition(b"\0")[0]
    name = line.replace(b"\t", b" ").strip(b" ").partition(b" ")[0]
    if not name:
        raise failure(errno.ENOEXEC)
    return name


def _ignores_set_id(file: int, device: int) -> bool:
    """Return whether a file lies on a nosuid mount of the container's own.

    The root file system is one by the host's choice where the bundle lies on such a mount.
    """
    return bool(os.fstatvfs(file).f_flag & os.ST_NOSUID) and device != os.stat("/").st_dev
