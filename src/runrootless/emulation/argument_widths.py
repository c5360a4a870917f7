"""Which arguments of system calls are an int, of which the kernel takes 32 bits.

A notification has whole registers, and a program may leave anything in their upper halves.
The prototypes are those of <linux/syscalls.h>.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.call import Call, Handler

INT = 0xFFFFFFFF

INTS: dict[str, tuple[int, ...]] = {
    "access": (1,),
    "bind": (0, 2),
    "chmod": (1,),
    "chown": (1, 2),
    # An unsigned long, of whose upper half nothing is taken either.
    "clone": (0,),
    "creat": (1,),
    "execveat": (0, 4),
    "faccessat": (0, 2),
    "faccessat2": (0, 2, 3),
    "fchdir": (0,),
    "fchmod": (0, 1),
    "fchmodat": (0, 2),
    "fchmodat2": (0, 2, 3),
    "fchown": (0, 1, 2),
    "fchownat": (0, 2, 3, 4),
    "fgetxattr": (0,),
    "flistxattr": (0,),
    "fremovexattr": (0,),
    "fsetxattr": (0, 4),
    "fsconfig": (0, 1, 4),
    "fsmount": (0, 1, 2),
    "fsopen": (1,),
    "fspick": (0, 2),
    "fstat": (0,),
    "futimesat": (0,),
    "getgroups": (0,),
    "getpriority": (0, 1),
    "getrlimit": (0,),
    "getsockopt": (0, 1, 2),
    "getxattrat": (0, 2),
    "inotify_add_watch": (0, 2),
    "io_uring_setup": (0,),
    "ioprio_get": (0, 1),
    "ioprio_set": (0, 1, 2),
    "kcmp": (0, 1, 2),
    "kill": (0, 1),
    "lchown": (1, 2),
    "linkat": (0, 2, 4),
    "listxattrat": (0, 2),
    "lsetxattr": (4,),
    "mkdir": (1,),
    "mkdirat": (0, 2),
    "mknod": (1, 2),
    "mknodat": (0, 2, 3),
    "mount_setattr": (0, 2),
    "move_mount": (0, 2, 4),
    "newfstatat": (0, 3),
    "open": (1, 2),
    "openat": (0, 2, 3),
    "open_tree": (0, 2),
    "open_tree_attr": (0, 2),
    "openat2": (0,),
    "pidfd_getfd": (0, 1, 2),
    "prctl": (0,),
    "prlimit64": (0, 1),
    "process_vm_readv": (0,),
    "process_vm_writev": (0,),
    # The request is a long.
    "ptrace": (1,),
    "readlink": (2,),
    "readlinkat": (0, 3),
    "reboot": (0, 1, 2),
    "recvmmsg": (0, 2, 3),
    "recvmsg": (0, 2),
    "removexattrat": (0, 2),
    "renameat": (0, 2),
    "renameat2": (0, 2, 4),
    "seccomp": (0, 1),
    "sendmmsg": (0, 2, 3),
    "sendmsg": (0, 2),
    "setdomainname": (1,),
    "setfsgid": (0,),
    "setfsuid": (0,),
    "setgid": (0,),
    "setgroups": (0,),
    "sethostname": (1,),
    "setns": (0, 1),
    "setpriority": (0, 1, 2),
    "setregid": (0, 1),
    "setresgid": (0, 1, 2),
    "setresuid": (0, 1, 2),
    "setreuid": (0, 1),
    "setrlimit": (0,),
    "setsockopt": (0, 1, 2, 4),
    "setuid": (0,),
    "setxattr": (4,),
    "setxattrat": (0, 2),
    "statx": (0, 2, 3),
    "symlinkat": (1,),
    "umount2": (1,),
    "unlinkat": (0, 2),
    "utimensat": (0, 3),
}
"""Calls of 64-bit programs to the indices of such arguments. The registers of 32-bit programs
have no upper halves."""


def narrowed(name: str, handler: Handler) -> Handler:
    """Return a handler of a system call that gets no more of its arguments than the kernel."""
    indices = INTS.get(name)
    if indices is None:
        return handler

    def narrow(call: Call) -> int | None:
        arguments = call.arguments
        for index in indices:
            arguments[index] &= INT
        return handler(call)

    return narrow
