"""Which calls may be answered once more, where it is not known whether they had their effect."""

from __future__ import annotations

from runrootless.emulation.table import rows
from runrootless.linux import seccomp
from runrootless.linux.seccomp import AUDIT_ARCHITECTURES
from runrootless.linux.syscall_numbers import NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

ONCE = frozenset(
    {
        # What has been made is there already, what has been removed is not there any more.
        *("mkdir", "mkdirat", "mknod", "mknodat", "symlink", "symlinkat", "bind"),
        *("open", "openat", "openat2", "creat", "pidfd_getfd"),
        *("removexattr", "lremovexattr", "fremovexattr", "removexattrat", "setxattrat"),
        *("mount", "umount2"),
        # Messages and signals would come twice, or be lost.
        *("sendmsg", "sendmmsg", "recvmsg", "recvmmsg", "recvmmsg_time64", "socketcall", "kill"),
        # The limit before would be the new one.
        "prlimit64",
    }
)
"""The calls of the table that are not: all others make what is asked for so, or only ask."""

_SETTING = frozenset({"setxattr", "lsetxattr", "fsetxattr"})
# XATTR_CREATE and XATTR_REPLACE ask whether it is there already.
_FLAGS = 4


class Repetition:
    """Tells which notifications are about calls that may be answered once more."""

    def __init__(self) -> None:
        self._once: Container[bytes] = _keys(ONCE)
        self._setting: Container[bytes] = _keys(_SETTING)

    def is_harmless(self, notification: bytes) -> bool:
        """Return whether nothing is amiss if the agent does for a second time what is asked."""
        _, key = seccomp.KEY.unpack(notification)
        if key in self._setting:
            arguments = seccomp.CALL.unpack(notification)[1:]
            return not arguments[_FLAGS]
        return key not in self._once


def _keys(names: frozenset[str]) -> frozenset[bytes]:
    """Return number and architecture of calls, packed as they are in a notification."""
    keys = set()
    for machine, architecture in AUDIT_ARCHITECTURES.items():
        for name, _, _ in rows(machine, thorough=True):
            number = NUMBERS[machine].get(name)
            if name in names and number is not None:
                keys.add(seccomp.NUMBER.pack(number, architecture))
    return frozenset(keys)
