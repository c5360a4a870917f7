"""Paths that lead out of a container if somebody else resolves them, and calls that take paths."""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runrootless.emulation.table import rows

Argument = Any
Call = list[Any]

# Placeholders: the directory descriptor, the path, and what is written to.
D, P, B = "D", "P", ["buffer"]

FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
EMPTY, NOFOLLOW, FOLLOW = 0x1000, 0x100, 0x400
O_TMPFILE = 0o20200000
OPEN = tuple(
    FLAGS | flags
    for flags in (
        os.O_CREAT | os.O_WRONLY,
        os.O_CREAT | os.O_EXCL | os.O_RDWR,
        os.O_CREAT | os.O_NOFOLLOW,
        os.O_WRONLY | os.O_TRUNC,
        os.O_RDWR,
        os.O_RDWR | os.O_NOFOLLOW,
        os.O_NOCTTY,
        os.O_NOCTTY | os.O_DIRECTORY,
        os.O_NOCTTY | os.O_PATH,
        os.O_NOCTTY | os.O_PATH | os.O_NOFOLLOW,
        O_TMPFILE | os.O_RDWR,
        os.O_RDONLY,
    )
)
OPENING = ("open", "openat", "openat2", "creat")
# RESOLVE_NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT: openat2(2).
RESOLVE = (0, 1, 2, 4, 8, 16)


def _how(flags: int, resolve: int) -> Argument:
    mode = 0o640 if flags & os.O_CREAT or flags & O_TMPFILE == O_TMPFILE else 0
    return ["value", struct.pack("=QQQ", flags, mode, resolve).hex()]


def _list(*entries: tuple[int, int, int]) -> str:
    """Return an access control list as system.posix_acl_access has it: acl(5)."""
    packed = b"".join(struct.pack("=HHI", *entry) for entry in entries)
    return (struct.pack("=I", 2) + packed).hex()


NOBODY = 0xFFFFFFFF
NAMED = _list((1, 6, NOBODY), (2, 6, 33), (4, 4, NOBODY), (16, 6, NOBODY), (32, 4, NOBODY))
SETTING = (
    ("user.x", b"a".hex()),
    ("trusted.x", b"b".hex()),
    ("security.x", b"c".hex()),
    ("system.posix_acl_access", NAMED),
)
ATTRIBUTES = [["text", name] for name, _ in SETTING]
ARGV, ENVIRON = ["words", ["id", "-u"]], ["words", ["PATH=/usr/bin:/bin"]]
TIMES = ["value", struct.pack("=4q", 1, 0, 2, 0).hex()]


def _set(*where: Argument) -> list[list[Argument]]:
    return [
        [*where, ["text", name], ["value", value], len(value) // 2, 0] for name, value in SETTING
    ]


def _with(before: Sequence[Argument], *after: Sequence[Argument]) -> list[list[Argument]]:
    return [[*before, *rest] for rest in after]


def _attribute(value: str = "") -> Argument:
    return ["attribute", value, 0]


PATH_CALLS: dict[str, list[list[Argument]]] = {
    "stat": [[P, B]],
    "lstat": [[P, B]],
    "newfstatat": _with([D, P, B], [0], [NOFOLLOW], [EMPTY]),
    "statx": _with([D, P], [0, 0x7FF, B], [NOFOLLOW, 0x7FF, B], [EMPTY, 0xFFF, B]),
    "chown": [[P, 33, 44]],
    "lchown": [[P, 33, 44]],
    "fchownat": _with([D, P, 5, 6], [0], [NOFOLLOW], [EMPTY]),
    "mknod": _with([P], [0o100644, 0], [0o20640, 0x103], [0o10600, 0], [0o140600, 0]),
    "mknodat": _with([D, P], [0o100644, 0], [0o60640, 0x801], [0o10600, 0]),
    "open": [[P, flags, 0o640] for flags in OPEN],
    "openat": [[D, P, flags, 0o640] for flags in OPEN],
    "openat2": [
        *([D, P, _how(flags, 0), 24] for flags in OPEN),
        *([D, P, _how(os.O_CREAT | os.O_WRONLY, resolve), 24] for resolve in RESOLVE),
        *([D, P, _how(FLAGS, resolve), 24] for resolve in RESOLVE),
    ],
    "creat": [[P, 0o640]],
    "mkdir": [[P, 0o750]],
    "mkdirat": [[D, P, 0o750]],
    "symlink": [[["text", "target"], P]],
    "symlinkat": [[["text", "target"], D, P]],
    "setxattr": _set(P),
    "lsetxattr": _set(P),
    "getxattr": [[P, name, B, 512] for name in ATTRIBUTES],
    "lgetxattr": [[P, name, B, 512] for name in ATTRIBUTES],
    "listxattr": [[P, B, 512]],
    "llistxattr": [[P, B, 512]],
    "removexattr": [[P, name] for name in ATTRIBUTES],
    "lremovexattr": [[P, name] for name in ATTRIBUTES],
    "setxattrat": [
        [D, P, flags, ["text", name], _attribute(value), 16]
        for name, value in SETTING
        for flags in (0, NOFOLLOW, EMPTY)
    ],
    "getxattrat": [[D, P, flags, ATTRIBUTES[0], _attribute(), 16] for flags in (0, NOFOLLOW)],
    "listxattrat": [[D, P, flags, B, 512] for flags in (0, NOFOLLOW, EMPTY)],
    "removexattrat": [[D, P, flags, ATTRIBUTES[0]] for flags in (0, NOFOLLOW)],
    "bind": [[["socket"], ["address", P], 110]],
    "execve": [[P, ARGV, ENVIRON]],
    "execveat": _with([D, P, ARGV, ENVIRON], [0], [NOFOLLOW], [EMPTY]),
    # By the engine that checks permissions.
    "access": [[P, 0], [P, 6]],
    "faccessat": [[D, P, 4]],
    "faccessat2": _with([D, P], [0, 0], [4, NOFOLLOW], [2, EMPTY]),
    "readlink": [[P, B, 512]],
    "readlinkat": [[D, P, B, 512]],
    "chdir": [[P]],
    "truncate": [[P, 3]],
    "statfs": [[P, B]],
    "inotify_add_watch": [[["watch"], P, 0x100], [["watch"], P, 0x02000100]],
    "link": [[["path", "f"], P], [P, ["path", "linked"]]],
    "linkat": [
        [D, P, AT_HERE, ["path", "linked"], flags]
        for AT_HERE in (-100,)
        for flags in (0, FOLLOW, EMPTY)
    ],
    "unlink": [[P]],
    "rmdir": [[P]],
    "unlinkat": [[D, P, 0], [D, P, 0x200]],
    "rename": [[["path", "f"], P], [P, ["path", "renamed"]]],
    "renameat": [[D, P, -100, ["path", "renamed"]]],
    "renameat2": [[-100, ["path", "f"], D, P, flags] for flags in (0, 1, 2)],
    "chmod": [[P, 0o640]],
    "fchmodat": [[D, P, 0o640]],
    "fchmodat2": _with([D, P, 0o640], [0], [NOFOLLOW], [EMPTY]),
    "utime": [[P, TIMES]],
    "utimes": [[P, TIMES]],
    "futimesat": [[D, P, TIMES]],
    "utimensat": _with([D, P, TIMES], [0], [NOFOLLOW]),
}
"""Of each call that takes a path, what it is tried with."""

TMPFS = [["text", "none"], P, ["text", "tmpfs"], 0, 0]
VIEW_CALLS: dict[str, list[list[Argument]]] = {
    "mount": [
        [["path", "d"], P, 0, 0x1000, 0],
        [P, ["path", "d"], 0, 0x1000, 0],
        TMPFS,
        [["text", "proc"], P, ["text", "proc"], 0, 0],
        # There is more below the container's own, so that nothing is bound from there.
        [["text", "sysfs"], P, ["text", "sysfs"], 0, 0],
    ],
    "umount2": [[P, 8], [P, 10]],
    "chroot": [[P]],
    "pivot_root": [[P, P]],
}
"""The same of those that change which files a process sees."""

WITHOUT_PATH = {
    "fstat", "fchown", "fsetxattr", "fgetxattr", "flistxattr", "fremovexattr", "fchmod", "fchdir",
    "getsockopt", "setsockopt", "sendmsg", "sendmmsg", "recvmsg", "recvmmsg",
    "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups",
    "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid",
    "setgroups", "capget", "capset", "prctl", "io_uring_setup", "kill", "prlimit64", "getrlimit",
    "setrlimit", "fsopen",
    # Of these nothing is looked up: whoever may make them is let through.
    "open_tree", "open_tree_attr", "move_mount", "fspick", "fsmount", "fsconfig", "mount_setattr",
    "sethostname", "setdomainname", "reboot", "setns", "unshare", "clone", "clone3",
    "setpriority", "getpriority", "ioprio_set", "ioprio_get",
    "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd",
}  # fmt: skip


def calls_with_paths(thorough: bool) -> list[str]:
    """Return the intercepted calls of x86_64 that take a path: all rows less ``WITHOUT_PATH``."""
    names = dict.fromkeys(row[0] for row in rows("x86_64", thorough))
    return [name for name in names if name not in WITHOUT_PATH]


def fill(arguments: Sequence[Argument], directory: str, path: str) -> list[Argument]:
    """Put a directory descriptor and a path into the arguments of a call."""

    def one(argument: Argument) -> Argument:
        if argument == D:
            return ["fd", directory]
        if argument == P:
            return ["path", path]
        if argument == ["address", P]:
            return ["address", path]
        return argument

    return [one(argument) for argument in arguments]


OF_OTHERS = ("{ppid}", "procbelow")
OF_CALLER = ("self", "fds", "task", "ns", "hostself", "link")
BY_NUMBER = ("setxattrat", "getxattrat", "listxattrat", "removexattrat", "fchmodat2")
LOOKING = (
    "stat", "lstat", "newfstatat", "statx", "execve", "execveat", "access", "faccessat",
    "faccessat2", "readlink", "readlinkat", "chdir", "statfs", "inotify_add_watch",
)  # fmt: skip


def is_the_kernels(name: str, path: str, user: int, directory: str = "cwd") -> bool:
    """Return whether the kernel decides what a call does to a file, and real root differs.

    It strips set-user-ID bits from files that root of a user namespace truncates. Whose
    processes users may look at is not emulated; programs are executed by a child.
    """
    if user and any(other in path for other in OF_OTHERS):
        return True
    if user and name.startswith("execve"):
        return directory in OF_CALLER or any(one in path for one in ("{fd_self}", "{pid}", "{tid}"))
    return name in (*OPENING, "truncate") and path.endswith(("suid", "own"))


def may_change(name: str) -> bool:
    """Return whether a call that succeeds may change a file."""
    return name not in LOOKING and "getxattr" not in name and "listxattr" not in name


def is_the_hosts(name: str, kinds: Sequence[str], theirs: str, here: str) -> bool:
    """Return whether a file is the host's or the kernel's, so that two outcomes are equally right.

    ``kinds`` tells whose: the files of procfs belong to the host, or to their process, and
    cannot be changed by root of a user namespace; the device nodes are the host's, and symlinks
    beside them have no attributes. The kernel has marked the directories of processes as
    immutable, which nobody is told: EPERM, where the permissions would say EACCES.
    """
    if "proc" in kinds:
        if any(word in name for word in ("chown", "chmod", "utime", "futimesat")):
            return here == "EPERM"
        if {theirs, here} == {"EPERM", "EACCES"}:
            return True
        known = {"EPERM", "EACCES", "ENOTSUP"}
        return (name in OPENING or "xattr" in name) and {theirs, here} <= known
    return "dev" in kinds and "xattr" in name and here in ("EPERM", "ENOTSUP")


def is_not_checked(name: str, arguments: Sequence[Argument]) -> bool:
    """Return whether the permissions for a call are checked by no engine: docs/semantics.md."""
    if name == "linkat":
        return bool(arguments[4] == EMPTY)
    return name == "openat2" and not str(arguments[2][1]).endswith("0" * 16)


def paths_of(call: Call) -> set[str]:
    """Return the paths that a call is given."""
    return {one[1] for one in call[1] if isinstance(one, list) and one[0] in ("path", "address")}


def describe(call: Call) -> str:
    """Return a call in a few words."""
    words = [str(one[-1]) if isinstance(one, list) and one else str(one) for one in call[1]]
    return f"{call[0]}({', '.join(word[:60] for word in words if word != 'buffer')})"


@dataclass(frozen=True)
class Batch:
    """Calls, and who makes them where: see ``attack_driver``."""

    calls: Sequence[Call]
    cwd: str = "cwd"
    user: int = 0
    thread: bool = False
    unshare: bool = False

    def message(self, canary: str, judges: bool = False) -> dict[str, Any]:
        """Return what the driver is told. ``canary`` is a path of the host.

        Real root's driver ``judges`` which calls concern what is the host's.
        """
        return {
            "calls": self.calls,
            "cwd": self.cwd,
            "user": self.user,
            "thread": self.thread,
            "unshare": self.unshare,
            "judges": judges,
            "words": {"canary": canary},
        }


WAYS = (
    "/proc/self/../..", "/proc/thread-self/../../../..", "/dev/fd/../../..",
    "/proc/self/fd/../../..", "/proc/self/ns/../../..", "/proc/self/task/../../..",
    "/proc/self/../self/../..", "/proc/self/task/{tid}/../../../..", "/proc/{pid}/../..",
    "//proc/self/../..", "/proc//self/../..", "/proc/./self/../..", "/./proc/self/../..",
    "/dev/../proc/self/../..", "/proc/self/cwd/../../proc/self/../..", "/proc/self/root/..",
    "/proc/self/fd/{fd_d}/../../..", "/proc/self/fd/{fd_self}/../..", "/proc/thread-self/cwd/../..",
    "l_up", "l_relup", "l_rootup", "l_fdup", "l_self/../..", "l_rel/../..", "l_devfd/../../..",
    "/procagain/self/../..", "/procagain/self/../../proc/self/../..", "/procbelow/..",
    "/procbelow/../proc/self/../..", "/proc/self/../../../../../..",
)  # fmt: skip
"""Ways to the root directory, all of which lead elsewhere in the eyes of another process."""

FILES = (
    "/proc/self", "/proc/self/", "/proc/self/.", "/proc/thread-self", "/proc/self/fd/{fd_f}",
    "/proc/self/fd/{fd_d}", "/proc/self/fd/{fd_d}/sub", "/proc/self/fd/{fd_d}/made",
    "/proc/self/fd/{fd_gone}/made", "/proc/self/fd/{fd_closed}", "/proc/self/fd/{fd_pipe}",
    "/proc/self/fd/{fd_root}/made", "/proc/self/cwd", "/proc/self/cwd/f", "/proc/self/cwd/made",
    "/proc/self/root/made", "/proc/self/root", "/proc/self/exe", "/proc/self/ns/mnt",
    "/proc/self/status", "/proc/self/limits", "/proc/self/map_files", "/proc/self/made",
    "/proc/self/task/{tid}/cwd/made", "/proc/self/task/{gone}/cwd/made", "/proc/{pid}/cwd/made",
    "/proc/{pid}/fd/{fd_f}", "/proc/{ppid}/cwd", "/proc/{gone}/cwd", "/proc/self/../self/cwd/made",
    "/proc/self/../self/fd/{fd_f}", "/proc/self/../thread-self/fd/{fd_d}/made",
    "/proc/self/fd/../fd/{fd_d}/made", "/proc/self/fd/{fd_proc}/self/fd/{fd_d}/made",
    "/proc/self/fd/{fd_self}/cwd/made", "/proc/self/fd/{fd_again}/self/cwd/made",
    "//proc/self/fd/{fd_d}/made", "/procagain/self/fd/{fd_d}/made", "/procagain/self/cwd/made",
    "/procagain/thread-self/cwd/suid", "/procbelow/cwd", "/dev/fd/{fd_d}/made", "/dev/fd/{fd_f}",
    "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stdout/made", "/dev/stderr", "/dev/fd/1/../made",
    "/proc/mounts", "/proc/net", "/proc/net/dev", "/proc", "/dev/null", "/dev/made",
    "l_self", "l_self/cwd/made", "l_self/fd/{fd_f}", "l_fd/{fd_d}/made", "l_cwd/made", "l_cwd",
    "l_root/made", "l_rel", "l_rel/cwd/made", "l_two/fd/{fd_d}/made", "l_again/cwd/made", "l_below",
    "l_below/cwd/made", "l_ns/mnt", "l_exe", "l_stdin", "l_net", "l_mounts", "l_new", "l_dangling",
    "l_loop", "l_devfd/{fd_f}", "l_thread/fd/{fd_d}/made", "l_d/made", "l_f", "l_d/", "l_f/",
    "made", "made/", "made/.", "d/../made", "suid", "own", "mine", "f/..", "f/made", "",
    "c40", "c41", "k40/made", "k41/made", "k40", "/proc/self/cwd/c38", "/proc/self/cwd/c39",
    "/proc/self/cwd/k38/made", "/proc/self/cwd/k39/made", "l_rel/cwd/k37/made",
    "l_rel/cwd/k38/made",
    "{pad:4095}made", "{pad:4096}made", "{pad:4095}f", "d/{pad:4095}made", "d/{pad:4090}../made",
    "/proc/self/cwd/{pad:4095}made", "/proc/self/cwd/{pad:4096}made", "{pad:4079}made",
    "/proc/self/fd/{fd_d}/{pad:4095}made",
)  # fmt: skip
"""Files of the caller's own, by ways that depend on who resolves them."""

OF_HOST = (
    "/hostproc/self", "/hostproc/self/cwd/made", "/hostproc/thread-self/cwd/made",
    "/hostproc/self/fd/{fd_f}", "/hostproc/self/fd/{fd_d}/made", "/hostproc/{host}/cwd/made",
    "/hostproc/self/../self/fd/{fd_d}/made", "/hostproc/self/root/made", "/hostproc/self/../..",
    "/hostproc/self/../../made", "/hostproc/../made", "/hostproc/self/task/{host}/cwd/made",
    "/hostproc/self/fd/../../../made", "/hostproc/self/exe",
)  # fmt: skip
"""The same by a procfs of the host that is bound in the container."""

RELATIVE = (
    ("self", "self/cwd/made"), ("self", "cwd/made"), ("self", "../self/cwd/made"),
    ("self", "../../made"), ("self", "../.."), ("self", "fd/{fd_f}"), ("self", ""), ("self", "."),
    ("self", "../..{canary}/new"), ("self", "root/made"), ("self", "status"), ("self", "exe"),
    ("fds", "{fd_f}"), ("fds", "{fd_d}/made"), ("fds", "../cwd/made"), ("fds", "../../../made"),
    ("fds", "../../..{canary}/secret"), ("task", "{tid}/cwd/made"), ("task", "../cwd/made"),
    ("ns", "mnt"), ("ns", "../../../made"), ("ns", "../fd/{fd_d}/made"), ("proc", "self/cwd/made"),
    ("proc", "thread-self/fd/{fd_d}/made"), ("proc", "../made"), ("proc", "self/../../made"),
    ("proc", "self/../..{canary}/secret"), ("proc", "self"), ("dev", "fd/{fd_d}/made"),
    ("dev", "stdin"), ("dev", "../proc/self/cwd/made"), ("dev", "made"),
    ("dev", "fd/../../../made"),
    ("again", "self/cwd/made"), ("again", "self/fd/{fd_f}"), ("again", "../made"),
    ("again", "self/../../made"), ("below", "../made"), ("below", ".."), ("gone", "made"),
    ("gone", "."), ("gone", "../made"), ("gone", ".."), ("gone", ""),
    ("gone", "../../../proc/self"),
    ("f", ""), ("f", "made"), ("closed", "made"), ("closed", ""), ("closed", "/proc/self"),
    ("minus", "made"), ("minus", "/proc/self/cwd/made"), ("link", ""), ("link", "cwd/made"),
    ("o_path", "made"), ("o_path", ""), ("status", ""), ("pipe", ""), ("root", "made"),
    ("root", "proc/self/cwd/made"), ("root", "proc/self/../..{canary}/secret"),
    ("place", "l_relup"), ("place", "l_rel/../..{canary}/new"), ("place", "{pad:4095}made"),
    ("place", "{pad:4096}made"), ("d", "{pad:4095}made"), ("root", "{pad:4095}made"),
)  # fmt: skip
"""Directory descriptors, or working directories, and paths from there."""

NO_DIRECTORIES = ("f", "closed", "minus", "link", "status", "pipe")
RELATIVE_OF_HOST = (
    ("host", "self/cwd/made"), ("host", "self/fd/{fd_f}"), ("host", "self/../../made"),
    ("host", "thread-self/cwd/made"), ("hostself", "cwd/made"), ("hostself", "../self/cwd/made"),
    ("hostself", "fd/{fd_d}/made"), ("hostself", "../../made"),
)  # fmt: skip


def ways_to(canary_names: Sequence[str]) -> list[str]:
    """Return all the ways, each to new files and to the canaries."""
    found = []
    for way in WAYS:
        found += [way, f"{way}/made", f"{way}/proc", f"{way}/"]
        found += [f"{way}{{canary}}/{name}" for name in canary_names]
    return found
