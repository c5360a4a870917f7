"""Which system calls are intercepted, and what handles each.

The seccomp profile and the agent's dispatch are both made from this one table, so
what is notified and what is handled cannot differ. It is imported by the command
line: nothing that costs start-up time belongs here.
"""

from __future__ import annotations

PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_TIMERSLACK = 29
PR_GET_TIMERSLACK = 30
PR_SET_MM = 35
PR_GET_NO_NEW_PRIVS = 39

SO_PASSCRED = 16
SO_PEERCRED = 17
SO_PEERGROUPS = 59

# What socketcall(2) stands for: <linux/net.h>.
SYS_BIND = 2
SYS_SETSOCKOPT = 14
SYS_GETSOCKOPT = 15
SYS_SENDMSG = 16
SYS_RECVMSG = 17
SYS_RECVMMSG = 19
SYS_SENDMMSG = 20

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import TypeAlias

    Condition: TypeAlias = tuple[int, str, int, int]
    Row: TypeAlias = "tuple[str, str, Condition | None]"

_O_CREAT = 0o100
_O_TRUNC = 0o1000
_O_NOCTTY = 0o400
_O_DIRECTORY = 0o200000
_O_DIRECTORY_OF_ARM = 0o40000
_O_RDWR = 2
_O_TMPFILE = 0o20000000
_RLIMIT_RTTIME = 15
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET: <linux/sched.h>.
_CLONE_NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000, 0x40000000)
_OPEN_TREE_CLONE = 1
_PRIO_USER = 2
_IOPRIO_WHO_USER = 3
_PTRACE_ATTACH = 16
_PTRACE_SEIZE = 0x4206

_INT = 0xFFFFFFFF
_KEPT = 0xFFFFFFFFFFFFFFFF
_XATTR_CREATE = 1


def _equals(argument: int, value: int) -> Condition:
    """Return the condition that an int is a value.

    seccomp sees the register, and the kernel takes no more of it than the lower half.
    """
    return (argument, "SCMP_CMP_MASKED_EQ", _INT, value)


def _has_bits(argument: int, bits: int) -> Condition:
    return (argument, "SCMP_CMP_MASKED_EQ", bits, bits)


def _each(name: str, target: str, argument: int, *values: int) -> list[Row]:
    """Return a row for each value that an argument may have."""
    return [(name, target, _equals(argument, value)) for value in values]


_OWNER_CALLS = ("chown", "lchown", "fchown")

TABLE: tuple[Row, ...] = (
    # What a file looks like.
    ("stat", "metadata.stat", None),
    ("lstat", "metadata.lstat", None),
    ("fstat", "metadata.fstat", None),
    ("newfstatat", "metadata.newfstatat", None),
    ("statx", "metadata.statx", None),
    # Giving files away.
    ("chown", "chown.chown", None),
    ("lchown", "chown.lchown", None),
    ("fchown", "chown.fchown", None),
    ("fchownat", "chown.fchownat", None),
    # Modes and times, of what may be an emulated device node that is open, or the host's.
    ("chmod", "modes.chmod", None),
    ("fchmod", "modes.fchmod", None),
    ("fchmodat", "modes.fchmodat", None),
    ("fchmodat2", "modes.fchmodat2", None),
    ("utimensat", "modes.utimensat", None),
    # Special files.
    ("mknod", "nodes.mknod", None),
    ("mknodat", "nodes.mknodat", None),
    # New files.
    ("open", "creation.open", _has_bits(1, _O_CREAT)),
    ("open", "creation.open", _has_bits(1, _O_TMPFILE)),
    # What is overwritten may be an emulated device node. Opening without these three flags is
    # intercepted where hardly a program does so: for both reading and writing, as is usual
    # with devices, and with O_NOCTTY, as by grep(1), which may be about a process's status.
    ("open", "creation.open", _has_bits(1, _O_TRUNC)),
    ("open", "creation.open", _has_bits(1, _O_RDWR)),
    ("open", "creation.open", _has_bits(1, _O_NOCTTY)),
    ("creat", "creation.creat", None),
    ("openat", "creation.openat", _has_bits(2, _O_CREAT)),
    ("openat", "creation.openat", _has_bits(2, _O_TMPFILE)),
    ("openat", "creation.openat", _has_bits(2, _O_TRUNC)),
    ("openat", "creation.openat", _has_bits(2, _O_RDWR)),
    ("openat", "creation.openat", _has_bits(2, _O_NOCTTY)),
    ("openat2", "creation.openat2", None),
    ("mkdir", "creation.mkdir", None),
    ("mkdirat", "creation.mkdirat", None),
    ("symlink", "creation.symlink", None),
    ("symlinkat", "creation.symlinkat", None),
    # Extended attributes.
    ("setxattr", "xattrs.setxattr", None),
    ("lsetxattr", "xattrs.lsetxattr", None),
    ("fsetxattr", "xattrs.fsetxattr", None),
    ("getxattr", "xattrs.getxattr", None),
    ("lgetxattr", "xattrs.lgetxattr", None),
    ("fgetxattr", "xattrs.fgetxattr", None),
    ("listxattr", "xattrs.listxattr", None),
    ("llistxattr", "xattrs.llistxattr", None),
    ("flistxattr", "xattrs.flistxattr", None),
    ("removexattr", "xattrs.removexattr", None),
    ("lremovexattr", "xattrs.lremovexattr", None),
    ("fremovexattr", "xattrs.fremovexattr", None),
    ("setxattrat", "xattrs.setxattrat", None),
    ("getxattrat", "xattrs.getxattrat", None),
    ("listxattrat", "xattrs.listxattrat", None),
    ("removexattrat", "xattrs.removexattrat", None),
    # Unix sockets.
    ("bind", "sockets.bind", None),
    *_each("getsockopt", "sockets.getsockopt", 2, SO_PEERCRED, SO_PEERGROUPS),
    # The IDs that messages carry.
    ("setsockopt", "receiving.setsockopt", _equals(2, SO_PASSCRED)),
    ("sendmsg", "sending.sendmsg", None),
    ("sendmmsg", "sending.sendmmsg", None),
    ("recvmsg", "receiving.recvmsg", None),
    ("recvmmsg", "receiving.recvmmsg", None),
    # Who a process is.
    ("getuid", "ids.getuid", None),
    ("geteuid", "ids.geteuid", None),
    ("getgid", "ids.getgid", None),
    ("getegid", "ids.getegid", None),
    ("getresuid", "ids.getresuid", None),
    ("getresgid", "ids.getresgid", None),
    ("getgroups", "ids.getgroups", None),
    ("setuid", "ids.setuid", None),
    ("setgid", "ids.setgid", None),
    ("setreuid", "ids.setreuid", None),
    ("setregid", "ids.setregid", None),
    ("setresuid", "ids.setresuid", None),
    ("setresgid", "ids.setresgid", None),
    ("setfsuid", "ids.setfsuid", None),
    ("setfsgid", "ids.setfsgid", None),
    ("setgroups", "ids.setgroups", None),
    ("capget", "capabilities.capget", None),
    ("capset", "capabilities.capset", None),
    *_each(
        "prctl",
        "process_options.prctl",
        0,
        PR_GET_DUMPABLE,
        PR_SET_DUMPABLE,
        PR_SET_KEEPCAPS,
        PR_CAPBSET_DROP,
        PR_SET_SECUREBITS,
        PR_SET_TIMERSLACK,
        PR_GET_TIMERSLACK,
        PR_SET_MM,
        PR_GET_NO_NEW_PRIVS,
    ),
    # What carries out calls that seccomp does not see.
    ("io_uring_setup", "refused.not_there", None),
    # Becoming somebody else by executing a file.
    ("execve", "execution.execve", None),
    ("execveat", "execution.execveat", None),
    # Of signals, those to everybody.
    ("kill", "signals.kill", _equals(0, _INT)),
    # Priorities, which are asked for and set by user as well.
    ("setpriority", "priorities.setpriority", None),
    ("getpriority", "priorities.getpriority", _equals(0, _PRIO_USER)),
    ("ioprio_set", "priorities.ioprio_set", None),
    ("ioprio_get", "priorities.ioprio_get", _equals(0, _IOPRIO_WHO_USER)),
    # The limit that the identity is kept in.
    ("prlimit64", "limits.prlimit", _equals(1, _RLIMIT_RTTIME)),
    ("getrlimit", "limits.getrlimit", _equals(0, _RLIMIT_RTTIME)),
    ("setrlimit", "limits.setrlimit", _equals(0, _RLIMIT_RTTIME)),
    # Mounts that root of a user namespace cannot make.
    ("mount", "mounts.mount", None),
    ("umount2", "mounts.umount", None),
    ("fsopen", "mounts.fsopen", None),
    # What gives a process a view of files that is not the container's.
    ("chroot", "roots.chroot", None),
    ("pivot_root", "roots.pivot_root", None),
    ("setns", "roots.setns", None),
    ("unshare", "roots.unshare", None),
    *(("clone", "roots.unshare", _has_bits(0, flag)) for flag in _CLONE_NAMESPACES),
    ("clone3", "roots.clone3", None),
    # What the bundle may allow, and then to root alone.
    ("open_tree", "privileges.administer", _has_bits(2, _OPEN_TREE_CLONE)),
    ("open_tree_attr", "privileges.open_tree_attr", None),
    ("move_mount", "privileges.administer", None),
    ("fspick", "privileges.administer", None),
    ("fsmount", "privileges.administer", None),
    # FSCONFIG_CMD_CREATE, RECONFIGURE, CREATE_EXCL.
    *_each("fsconfig", "privileges.fsconfig", 1, 6, 7, 8),
    ("mount_setattr", "privileges.administer", None),
    ("sethostname", "privileges.administer", None),
    ("setdomainname", "privileges.administer", None),
    ("reboot", "privileges.reboot", None),
)
"""System call, component and method that handle it, and the condition on one argument
(index, comparison, value, second value: the OCI runtime spec's LinuxSyscallArg)."""


I386_TABLE: tuple[Row, ...] = (
    ("stat", "i386.stat", None),
    ("lstat", "i386.lstat", None),
    ("fstat", "i386.fstat", None),
    ("stat64", "i386.stat64", None),
    ("lstat64", "i386.lstat64", None),
    ("fstat64", "i386.fstat64", None),
    ("fstatat64", "i386.fstatat64", None),
    # Without "32", these are the calls with 16-bit IDs.
    *(
        row
        for name, target, _ in TABLE
        if target.startswith("ids.") or name in _OWNER_CALLS
        for row in ((name, f"ids_16.{name}", None), (f"{name}32", target, None))
    ),
    ("utimensat", "modes.utimensat_32", None),
    ("utimensat_time64", "modes.utimensat", None),
    ("sendmsg", "sending.sendmsg_32", None),
    ("sendmmsg", "sending.sendmmsg_32", None),
    ("recvmsg", "receiving.recvmsg_32", None),
    ("recvmmsg", "receiving.recvmmsg_32", None),
    ("recvmmsg_time64", "receiving.recvmmsg_32", None),
    *_each(
        "socketcall",
        "socketcall.socketcall",
        0,
        SYS_BIND,
        SYS_SETSOCKOPT,
        SYS_GETSOCKOPT,
        SYS_SENDMSG,
        SYS_RECVMSG,
        SYS_RECVMMSG,
        SYS_SENDMMSG,
    ),
    ("umount", "mounts.old_umount", None),
    ("ugetrlimit", "limits.getrlimit_32", _equals(0, _RLIMIT_RTTIME)),
    ("getrlimit", "limits.old_getrlimit_32", _equals(0, _RLIMIT_RTTIME)),
    ("setrlimit", "limits.setrlimit_32", _equals(0, _RLIMIT_RTTIME)),
)
"""The same for what 32-bit programs on x86_64 call otherwise, or with other structures."""


CHECKED_TABLE: tuple[Row, ...] = (
    # Looking into other processes.
    *_each("ptrace", "tracing.ptrace", 0, _PTRACE_ATTACH, _PTRACE_SEIZE),
    ("process_vm_readv", "tracing.process_vm", None),
    ("process_vm_writev", "tracing.process_vm", None),
    ("kcmp", "tracing.kcmp", None),
    ("pidfd_getfd", "tracing.pidfd_getfd", None),
)
"""What is intercepted besides with the engine thorough, as in ``TABLE``."""

FAST_TABLE: tuple[Row, ...] = (
    # A filter of a program's own may end it for calls that the fast path makes.
    *_each("seccomp", "process_options.seccomp", 0, 0, 1),
    ("prctl", "process_options.prctl", _equals(0, PR_SET_SECCOMP)),
)
"""What is intercepted besides with the fast path, as in ``TABLE``."""

PASSED: dict[str, tuple[Condition, ...]] = {
    **dict.fromkeys(("newfstatat", "fstat", "statx"), ()),
    **dict.fromkeys(("getxattr", "lgetxattr", "fgetxattr", "getxattrat"), ()),
    **dict.fromkeys(("listxattr", "llistxattr", "flistxattr"), ()),
    # What the agent lets the kernel carry out, after a look at the file.
    **dict.fromkeys(("openat", "openat2", "mkdir", "mkdirat", "symlink", "symlinkat"), ()),
    **dict.fromkeys(("chmod", "fchmod", "fchmodat", "fchmodat2", "utimensat"), ()),
    # Without an owner: that changes the times, and clears the set-ID bits.
    **dict.fromkeys(
        ("chown", "lchown", "fchown"),
        ((1, "SCMP_CMP_EQ", _KEPT, 0), (2, "SCMP_CMP_EQ", _KEPT, 0)),
    ),
    "fchownat": ((2, "SCMP_CMP_EQ", _KEPT, 0), (3, "SCMP_CMP_EQ", _KEPT, 0)),
    # An attribute that is not there: none is replaced.
    **dict.fromkeys(
        ("setxattr", "lsetxattr", "fsetxattr"), ((4, "SCMP_CMP_EQ", _XATTR_CREATE, 0),)
    ),
    # There it is in memory whether one is replaced.
    "setxattrat": (),
    # Without a new limit: one who knows the number is not to be somebody else by it.
    "prlimit64": ((2, "SCMP_CMP_EQ", 0, 0),),
}
"""The calls of 64-bit programs that the fast path makes, with a number as their sixth argument:
then they are let through, if all conditions hold. They have no more than five arguments but for
those of ``SPLIT``."""

SPLIT = dict.fromkeys(("getxattrat", "setxattrat"), (0, 2))
"""Calls with six arguments: two that are an int, the upper halves of which are the number's lower
and upper half. The kernel does not look at them."""

CHECKS = {
    "open": "open",
    "openat": "openat",
    "openat2": "openat2",
    "creat": "creat",
    "stat": "look",
    "lstat": "look_nofollow",
    "newfstatat": "newfstatat",
    "statx": "statx",
    "readlink": "readlink",
    "readlinkat": "readlinkat",
    "chown": "look",
    "lchown": "look_nofollow",
    "fchownat": "fchownat",
    "chdir": "chdir",
    "fchdir": "fchdir",
    "access": "access",
    "faccessat": "faccessat",
    "faccessat2": "faccessat2",
    "truncate": "truncate",
    "statfs": "look",
    "inotify_add_watch": "inotify_add_watch",
    "execve": "execve",
    "execveat": "execveat",
    "mkdir": "mkdir",
    "mkdirat": "mkdirat",
    "mknod": "mknod",
    "mknodat": "mknodat",
    "symlink": "symlink",
    "symlinkat": "symlinkat",
    "link": "link",
    "linkat": "linkat",
    "unlink": "unlink",
    "rmdir": "rmdir",
    "unlinkat": "unlinkat",
    "rename": "rename",
    "renameat": "renameat",
    "renameat2": "renameat2",
    "chmod": "chmod",
    "fchmod": "fchmod",
    "fchmodat": "fchmodat",
    "fchmodat2": "fchmodat2",
    "utime": "utime",
    "utimes": "utimes",
    "futimesat": "futimesat",
    "utimensat": "utimensat",
}
"""System call, and the method of ``checks`` that tells whether an emulated user may do it:
with the engine thorough."""

I386_CHECKS = CHECKS | {
    "stat64": "look",
    "lstat64": "look_nofollow",
    "fstatat64": "newfstatat",
    "chown32": "look",
    "lchown32": "look_nofollow",
    "truncate64": "truncate",
    "statfs64": "look",
    "utime": "utime_32",
    "utimes": "utimes_32",
    "futimesat": "futimesat_32",
    "utimensat": "utimensat_32",
    "utimensat_time64": "utimensat",
}
"""The same for 32-bit programs on x86_64."""


def rows(machine: str, thorough: bool = False, fast: bool = False) -> list[Row]:
    """Return what is intercepted of programs for ``machine``: x86_64, i386 or aarch64.

    With ``thorough`` also what the checks are about, whatever the arguments; with ``fast``
    also what the fast path is about.
    """
    directory = _O_DIRECTORY_OF_ARM if machine == "aarch64" else _O_DIRECTORY
    table = [
        # A directory is no status file; fts(3) and tar(1) open each so.
        (name, target, (condition[0], condition[1], _O_NOCTTY | directory, _O_NOCTTY))
        if condition and condition[2] == _O_NOCTTY
        else (name, target, condition)
        for name, target, condition in TABLE
    ]
    if machine == "i386":
        different = {name for name, _, _ in I386_TABLE}
        table = [row for row in table if row[0] not in different] + list(I386_TABLE)
    if fast:
        table += FAST_TABLE
    if not thorough:
        return table
    checks = I386_CHECKS if machine == "i386" else CHECKS
    table += CHECKED_TABLE
    found: dict[tuple[str, Condition | None], Row] = {}
    for name, target, condition in table:
        where = None if name in checks else condition
        found[name, where] = (name, target, where)
    for name, method in checks.items():
        found.setdefault((name, None), (name, f"checks.{method}", None))
    return list(found.values())
