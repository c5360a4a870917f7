"""Having a stopped process install our seccomp filter, and taking its listener."""

from __future__ import annotations

import errno
import os

from runrootless.errors import Error, one_line
from runrootless.linux import pidfd
from runrootless.linux.process import PR_SET_NO_NEW_PRIVS
from runrootless.linux.seccomp import (
    FILTER_NEW_LISTENER,
    FILTER_SPEC_ALLOW,
    FILTER_WAIT_KILLABLE_RECEIVE,
    SET_MODE_FILTER,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.tracing.tracee import Calls

# <linux/seccomp.h>, <sys/mman.h>.
_TSYNC, _TSYNC_ESRCH = 1, 16
_READ_WRITE, _PRIVATE_ANONYMOUS = 3, 0x22
_FLAGS = FILTER_NEW_LISTENER | FILTER_SPEC_ALLOW | _TSYNC | _TSYNC_ESRCH
# The largest page that a kernel has.
_PAGE = 1 << 16
_BEHIND_HEADER = 16
_REASONS = {
    errno.EBUSY: "it has a seccomp listener already, and there can be one only",
    errno.ESRCH: "its threads have seccomp filters of their own",
    errno.EPERM: "its seccomp profile forbids seccomp(2)",
    errno.EACCES: "it is neither allowed to, nor to set no_new_privs",
    errno.ENOSYS: "its seccomp profile forbids seccomp(2), or the kernel lacks it",
    errno.EINVAL: "the kernel has no listeners, which takes Linux 5.9",
}


def install(calls: Calls, process: int, program: bytes) -> int:
    """Put all threads of a process under a filter; return a descriptor of its listener here.

    ``program`` is in BPF instructions. In the process nothing is left but the filter and
    no_new_privs, which it takes (seccomp(2)). Raises Error where it cannot be had.
    """
    size = -(-(_BEHIND_HEADER + len(program)) // _PAGE) * _PAGE
    try:
        place = calls.call("mmap", 0, size, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
        try:
            header = calls.machine.program.pack(len(program) // 8, place + _BEHIND_HEADER)
            calls.write(place, header.ljust(_BEHIND_HEADER, b"\0") + program)
            number = _install(calls, place)
        finally:
            calls.call("munmap", place, size)
        try:
            return pidfd.duplicate(process, number)
        finally:
            calls.call("close", number)
    except OSError as error:
        raise Error(
            f"process {process} cannot be put under the filter that emulates root: "
            f"{one_line(error)}"
        ) from None


def _install(calls: Calls, place: int) -> int:
    """Install the filter; return the listener's descriptor in the process."""
    try:
        calls.call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    except OSError:
        # seccomp(2) may do without: CAP_SYS_ADMIN.
        pass
    for flags in (_FLAGS | FILTER_WAIT_KILLABLE_RECEIVE, _FLAGS):
        try:
            return calls.call("seccomp", SET_MODE_FILTER, flags, place)
        except OSError as error:
            number = error.errno or 0
        # Before Linux 5.19.
        if number != errno.EINVAL:
            break
    reason = _REASONS.get(number, os.strerror(number))
    raise Error(f"the filter that emulates root cannot be installed: {reason}")
