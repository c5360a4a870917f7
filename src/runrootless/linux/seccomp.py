"""Filters and their user-space notification: seccomp(2), seccomp_unotify(2), <linux/seccomp.h>."""

from __future__ import annotations

import os
import struct
from fcntl import ioctl

from runrootless.linux.libc import address, c_long, c_void_p, check, function

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}
"""Machine to ``AUDIT_ARCH_*`` of <linux/audit.h>, as seccomp reports it."""

SYSTEM_CALL = {"x86_64": 317, "i386": 354, "aarch64": 277}
"""Machine to the number of seccomp(2), <asm/unistd.h>."""

RETURN_ALLOW = 0x7FFF0000
"""``SECCOMP_RET_ALLOW``."""

RETURN_NOTIFY = 0x7FC00000
"""``SECCOMP_RET_USER_NOTIF``."""

RETURN_ERRNO = 0x00050000
"""``SECCOMP_RET_ERRNO``, to be combined with the number, which may be 0."""

FILTER_SPEC_ALLOW = 4
"""``SECCOMP_FILTER_FLAG_SPEC_ALLOW``: no slower than without a filter before Linux 5.16."""

FILTER_NEW_LISTENER = 8
"""``SECCOMP_FILTER_FLAG_NEW_LISTENER``."""

FILTER_WAIT_KILLABLE_RECEIVE = 32
"""``SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV``, Linux 5.19: a call that has been received is
interrupted by nothing but the end of its process."""

SEND = 0xC0182101
"""``SECCOMP_IOCTL_NOTIF_SEND``: answers a notification with a packed RESPONSE.

ioctl(2) fails with ENOENT where the call was interrupted or its process is gone.
"""

NOTIFICATION_SIZE = 80
"""Size of ``struct seccomp_notif`` in bytes."""

IDENTIFIER = slice(0, 8)
"""Where a notification has its id, which is never more than eight bytes to hand back."""

DATA = slice(16, 80)
"""Where it has ``struct seccomp_data``: the call, where it was made, and its arguments."""

RESPONSE_SIZE = 24
"""Size of ``struct seccomp_notif_resp`` in bytes."""

KEY = struct.Struct("8s8x8s56x")
"""The id of a notification, and the number and the architecture, packed as ``NUMBER``."""

NUMBER = struct.Struct("=iI")
"""System call number and ``AUDIT_ARCH_*``, as ``struct seccomp_data`` begins."""

CALL = struct.Struct("=8xI20x6Q")
"""The process ID and the six arguments of a notification."""

RESPONSE = struct.Struct("=8sqiI")
"""``struct seccomp_notif_resp``: id, value, negative error number, flags."""


ADD_FD = struct.Struct("=8sIIII")
"""``struct seccomp_notif_addfd``: id, flags, source fd, target fd, its flags."""

FLAG_CONTINUE = 1
"""``SECCOMP_USER_NOTIF_FLAG_CONTINUE``: let the kernel carry out the call."""

FD_SYNC_WAKE_UP = 1
"""``SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP``, Linux 6.6."""

ADDFD_FLAG_SEND = 2
"""``SECCOMP_ADDFD_FLAG_SEND``, Linux 5.14: add the descriptor and return it, in one step."""

_ID_VALID = 0x40082102
_ADD_FD = 0x40182103
_SET_FLAGS = 0x40082104
SET_MODE_FILTER = 1
"""``SECCOMP_SET_MODE_FILTER``."""

_PROGRAM = struct.Struct("@HP")

_syscall = function("syscall")


def install(program: bytes, flags: int) -> int:
    """Put this thread under a filter of BPF instructions; return 0, or the listener's descriptor.

    It closes on exec. Raises OSError: EBUSY where there is a listener already, EINVAL for
    flags that the kernel does not know, EACCES without no_new_privs and CAP_SYS_ADMIN.
    """
    instructions = bytearray(program)
    header = bytearray(_PROGRAM.pack(len(program) // 8, address(instructions)))
    number = c_long(SYSTEM_CALL[os.uname().machine])
    pointer = c_void_p(address(header))
    return check(_syscall(number, c_long(SET_MODE_FILTER), c_long(flags), pointer), "seccomp")


def send(listener: int, response: bytes) -> None:
    """Answer a notification with a packed ``RESPONSE``.

    Raises OSError: ENOENT where the call was interrupted or its process is gone.
    """
    # Of bytes, fcntl.ioctl finds out by an exception that they cannot be written to.
    ioctl(listener, SEND, bytearray(response))


def is_valid(listener: int, identifier: bytes | bytearray) -> bool:
    """Return whether the notification with this id still waits for its answer."""
    try:
        ioctl(listener, _ID_VALID, bytearray(identifier))
    except OSError:
        return False
    return True


def add_fd_and_send(listener: int, identifier: bytes, fd: int, close_on_exec: int) -> int:
    """Install ``fd`` in the waiting process, as the result of its call; return its number there.

    ``close_on_exec`` is O_CLOEXEC or 0. Raises OSError: ENOENT, EMFILE, EINVAL before Linux 5.14.
    """
    request = ADD_FD.pack(identifier, ADDFD_FLAG_SEND, fd, 0, close_on_exec)
    # An integer argument is no buffer: the number comes back as ioctl's own result,
    # which the bytes form of fcntl.ioctl does not tell, the mutable one does.
    return int(ioctl(listener, _ADD_FD, bytearray(request), True))


def add_fd(listener: int, identifier: bytes, fd: int, close_on_exec: int) -> int:
    """Install ``fd`` in the waiting process, which goes on waiting; return its number there.

    ``close_on_exec`` is O_CLOEXEC or 0. Raises OSError: ENOENT, EMFILE.
    """
    request = ADD_FD.pack(identifier, 0, fd, 0, close_on_exec)
    return int(ioctl(listener, _ADD_FD, bytearray(request), True))


def set_flags(listener: int, flags: int) -> None:
    """Set the flags of a listener. Raises OSError: EINVAL before Linux 6.6."""
    ioctl(listener, _SET_FLAGS, flags)
