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
        *("mount", "umount", "umount2"),
        # Messages and signals would come twice, or be lost.
        *("sendmsg", "sendmmsg", "recvmsg", "recvmmsg", "recvmmsg_time64", "socketcall", "kill"),
        # The limit before would be the new one.
        "prlimit64",
    }
)
"""The calls of the table that are not: all others make what is asked for so, or only ask."""

UNDONE = frozenset(
    {
        *("mkdir", "mkdirat", "mknod", "mknodat", "symlink", "symlinkat"),
        *("open", "openat", "openat2", "creat"),
        *("removexattr", "lremovexattr", "fremovexattr", "removexattrat"),
        *("setxattr", "lsetxattr", "fsetxattr", "setxattrat"),
        *("mount", "prlimit64"),
    }
)
"""The calls whose handlers undo what they have done where the answer cannot be delivered: they
give it themselves. Those that set attributes do so with XATTR_CREATE."""

REMEMBERED = frozenset(
    {"kill", "umount", "umount2", "setfsuid", "setfsgid", "setfsuid32", "setfsgid32"}
)
"""The calls whose answer is remembered then, since nothing can be undone, or nothing was done
the second time and the answer is another one."""

KEPT = frozenset({"recvmsg", "recvmmsg", "recvmmsg_time64", "socketcall"})
"""The calls that find what there was the first time: the message is kept for the next one."""

IDEMPOTENT = frozenset(
    {
        # What the kernel does: it does it the second time, or refuses to.
        *("bind", "sendmsg", "sendmmsg", "execve", "execveat", "chroot", "pivot_root", "setns"),
        *(
            "unshare",
            "clone",
            "clone3",
            "setsockopt",
            "fsopen",
            "io_uring_setup",
            "prctl",
            "seccomp",
            "capset",
        ),
        *("open_tree", "open_tree_attr", "move_mount", "fspick", "fsmount", "fsconfig"),
        *("mount_setattr", "sethostname", "setdomainname", "reboot"),
        # What makes things so, and nothing else: the same the second time.
        *("chown", "lchown", "fchown", "fchownat", "chown32", "lchown32", "fchown32"),
        *("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups"),
        *("setuid32", "setgid32", "setreuid32", "setregid32", "setresuid32", "setresgid32"),
        *("setgroups32", "setrlimit", "setpriority", "ioprio_set"),
        *("chmod", "fchmod", "fchmodat", "fchmodat2", "utimensat", "utimensat_time64"),
        # What only asks.
        *("stat", "lstat", "fstat", "newfstatat", "statx"),
        *("stat64", "lstat64", "fstat64", "fstatat64"),
        *("getxattr", "lgetxattr", "fgetxattr", "getxattrat"),
        *("listxattr", "llistxattr", "flistxattr", "listxattrat", "getsockopt"),
        *("getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups"),
        *("getuid32", "geteuid32", "getgid32", "getegid32", "getresuid32", "getresgid32"),
        *("getgroups32", "capget", "getrlimit", "ugetrlimit", "getpriority", "ioprio_get"),
    }
)
"""The other calls that are intercepted whatever the engine: nothing is to be done about them.
Of all that are checked only, the kernel carries out what is let through."""

_SETTING = frozenset({"setxattr", "lsetxattr", "fsetxattr"})
# XATTR_CREATE and XATTR_REPLACE ask whether it is there already.
_FLAGS = 4


class Repetition:
    """Tells which notifications are about calls that may be answered once more."""

    def __init__(self) -> None:
        self._once: Container[bytes] = keys_of(ONCE)
        self._setting: Container[bytes] = keys_of(_SETTING)

    def is_harmless(self, notification: bytes) -> bool:
        """Return whether the agent may carry out the call a second time."""
        _, key = seccomp.KEY.unpack(notification)
        if key in self._setting:
            arguments = seccomp.CALL.unpack(notification)[1:]
            return not arguments[_FLAGS]
        return key not in self._once


def keys_of(names: frozenset[str]) -> frozenset[bytes]:
    """Return number and architecture of calls, packed as they are in a notification."""
    keys = set()
    for machine, architecture in AUDIT_ARCHITECTURES.items():
        for name, _, _ in rows(machine, thorough=True, fast=True):
            number = NUMBERS[machine].get(name)
            if name in names and number is not None:
                keys.add(seccomp.NUMBER.pack(number, architecture))
    return frozenset(keys)
