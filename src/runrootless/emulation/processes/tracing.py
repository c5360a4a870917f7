"""Looking into other processes: ptrace(2), process_vm_readv(2), kcmp(2), pidfd_getfd(2).

The rules are in ptrace(2) under "Ptrace access mode checking"; kernel/ptrace.c and
security/commoncap.c. To the kernel all processes of the container are one user.
"""

from __future__ import annotations

import errno
import os

from runrootless.emulation.call import Call, failure, require_valid
from runrootless.emulation.callers.credentials import CAP_SYS_PTRACE, Credentials
from runrootless.emulation.callers.identity import Identity
from runrootless.emulation.handlers import Handlers
from runrootless.linux.pidfd import duplicate, process_of, take
from runrootless.linux.processes import find_process, read_status, status_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PTRACE_ATTACH, _PTRACE_SEIZE = 16, 0x4206


def may_look(
    identity: Identity,
    caller: int,
    who: Credentials,
    others: Iterable[tuple[Credentials, bool]],
    by_file_system_ids: bool = False,
) -> bool:
    """Return whether a caller, which has the credentials ``who``, may look into a process.

    ``others`` is what that has for credentials, and whether it can be dumped; all of them
    count. ``by_file_system_ids`` is PTRACE_MODE_FSCREDS, by which files in /proc are opened.
    Raises OSError where the caller is gone.
    """
    uid, gid = who.uids[0], who.gids[0]
    capabilities = who.permitted
    if by_file_system_ids:
        uid, gid, capabilities = who.uids[3], who.gids[3], who.effective
    for other, dumpable in others:
        is_own = (
            set(other.uids[:3]) == {uid}
            and set(other.gids[:3]) == {gid}
            and dumpable
            and not other.permitted & ~capabilities
        )
        if not is_own and not identity.may(caller, who, CAP_SYS_PTRACE):
            return False
    return True


class Tracing(Handlers):
    """Handlers of these calls, with the engine thorough. The kernel carries most of them out."""

    def ptrace(self, call: Call) -> None:
        """ptrace(2) with PTRACE_ATTACH or PTRACE_SEIZE."""
        request, number, address = call.arguments[:3]
        # The request is a long. EIO.
        if request == _PTRACE_ATTACH or (request == _PTRACE_SEIZE and not address):
            self._require(call, number)

    def process_vm(self, call: Call) -> None:
        """process_vm_readv(2), process_vm_writev(2)."""
        number, _, count, _, _, flags = call.arguments
        # EINVAL; nothing.
        if not flags and count:
            self._require(call, number)

    def kcmp(self, call: Call) -> None:
        """kcmp(2)."""
        for number in call.arguments[:2]:
            self._require(call, number)

    def pidfd_getfd(self, call: Call) -> int | None:
        """pidfd_getfd(2): done here, since the first argument may lead elsewhere meanwhile."""
        _, _, flags = call.arguments[:3]
        who = self._identity.of(call.pid)
        if flags or self._identity.may(call.pid, who, CAP_SYS_PTRACE):
            return None
        own = int(status_fields(read_status(call.pid), b"Tgid")[0])
        pidfd = duplicate(own, call.descriptor(0))
        try:
            process = process_of(pidfd)
            self._require_thread(call, who, process)
            fd = take(pidfd, call.descriptor(1))
            try:
                # A program that it has executed meanwhile may have other IDs.
                self._require_thread(call, who, process)
                require_valid(call)
                call.answer_with_fd(fd, os.O_CLOEXEC)
            finally:
                os.close(fd)
        finally:
            os.close(pidfd)
        return Call.ANSWERED

    def _require(self, call: Call, number: int) -> None:
        """Raise EPERM unless the caller may look into a thread of its pid namespace."""
        thread = find_process(call.pid, number) if number else 0
        # A number that nobody has is the kernel's to refuse.
        if thread:
            self._require_thread(call, self._identity.of(call.pid), thread)

    def _require_thread(self, call: Call, who: Credentials, thread: int) -> None:
        if thread == call.pid or _process(thread) == _process(call.pid):
            return
        others = self._identity.prospects(thread)
        # A launcher that has not come under the filter yet would be made to do without.
        if _filters(thread) < _filters(call.pid) and who.uids[1]:
            raise failure(errno.EPERM)
        if not may_look(self._identity, call.pid, who, others):
            raise failure(errno.EPERM)


def _filters(thread: int) -> int:
    """Return how many seccomp filters a thread has, proc(5). Raises OSError where it is gone."""
    found = status_fields(read_status(thread), b"Seccomp_filters")
    return int(found[0]) if found else 0


def _process(thread: int) -> bytes:
    """Return the process of a thread. Raises OSError where it is gone."""
    return status_fields(read_status(thread), b"Tgid")[0]
