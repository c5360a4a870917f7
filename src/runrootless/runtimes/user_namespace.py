"""A user namespace around the runtime, in which it and the agent may trace processes and mount.

A runtime makes itself non-dumpable before it joins a container (CVE-2016-9962).
Then its parent may not take the seccomp listener out of it with pidfd_getfd(2),
nor the agent look into /proc/PID, unless they have CAP_SYS_PTRACE in the user
namespace in which the runtime was executed: ptrace(2), "Ptrace access mode
checking".  On the host an unprivileged caller never has that, and so ``runc
exec`` would fail ("performing SYS_PIDFD_GETFD syscall: operation not permitted").

So the runtime is executed in a user namespace of its own, between the host's and
the container's.  The caller has the same IDs in it, to keep the runtime in its
rootless ways, and that capability.  ``exec`` joins it again.

A mount namespace comes with it, and CAP_SYS_ADMIN.  So the runtime can protect its
program from the container (CVE-2019-5736) by a read-only mount of it.  Else it makes a
copy of it at every start, ten megabytes in runc's case.  crun makes a mount namespace
for devices, and returns from it: that takes CAP_SYS_CHROOT as well, setns(2), and else it
stays there, with a mount in the directory of its state that it then cannot remove.
"""

from __future__ import annotations

import os
import sys
from ctypes import CDLL
from fcntl import ioctl

from runrootless.containers import state
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LIBC = CDLL(None)
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
# <linux/nsfs.h>: the parent of a user namespace, see ioctl_ns(2).
_NS_GET_PARENT = 0xB702
# The name of a file in a container's private directory.
_NOTE = "user-namespace"
# <linux/prctl.h> and <linux/capability.h>.
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_SYS_CHROOT = 18
_CAP_SYS_PTRACE = 19
_CAP_SYS_ADMIN = 21
_KEPT = (_CAP_SYS_CHROOT, _CAP_SYS_PTRACE, _CAP_SYS_ADMIN)
_APPARMOR_SWITCH = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
_APPARMOR_PROFILES = "/etc/apparmor.d"
# Each with the value that forbids them.
_SWITCHES = (
    ("/proc/sys/user/max_user_namespaces", b"0"),
    ("/proc/sys/kernel/unprivileged_userns_clone", b"0"),
    (_APPARMOR_SWITCH, b"1"),
)
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
# Of the low half, where these are; the agent needs none of the others.
_EVERY_CAPABILITY = (1 << 32) - 1


def enter_new(runtime: str = "") -> bool:
    """Put this process in a new user namespace with the same IDs, unless it needs none.

    None is needed with CAP_SYS_PTRACE in the present one.  Returns False if there are no user
    namespaces for the program ``runtime`` either, so that it cannot do its work.  Where AppArmor
    keeps them from this program only, the process stays where it is: then all but ``exec`` works.

    Raises ``Error`` if the IDs cannot be mapped.
    """
    if _may_trace():
        return True
    if _is_restricted():
        return _has_profile(runtime)
    uid, gid = os.geteuid(), os.getegid()
    if _LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0 and _LIBC.unshare(_CLONE_NEWUSER) != 0:
        return False
    try:
        # Without that, an unprivileged gid_map is refused: user_namespaces(7).
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    except OSError as error:
        raise Error(
            f"cannot map user {uid} in a user namespace: {error.filename}: {error.strerror}"
        ) from None
    _keep_capabilities()
    return True


def can_be_made() -> bool:
    """Return whether the kernel lets this program make a user namespace; it is tried in a child."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if _LIBC.unshare(_CLONE_NEWUSER) == 0 else 1)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def obstacle() -> str:
    """Return, for a user, what keeps user namespaces from the caller."""
    for path, value in _SWITCHES:
        try:
            if _read(path).strip() == value:
                return f"there are no user namespaces ({path} is {value.decode()})"
        except OSError:
            continue
    return "there are no user namespaces (the kernel refuses them: a seccomp filter, or its limits)"


def note(directory: str) -> None:
    """Write into a container's private directory in which user namespace its runtime is.

    A process of the container cannot change that, while it may leave its own. Raises OSError.
    """
    path = os.path.join(directory, _NOTE)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, state.MODE)
    try:
        os.write(file, "{} {}".format(*_identity("/proc/self/ns/user")).encode())
    finally:
        os.close(file)


def enter_around(pid: int, directory: str) -> None:
    """Put this process in the user namespace that was made for a container.

    ``pid`` is its first process, ``directory`` its private one. Nothing happens if there is none:
    the container is a child of the present user namespace, or the process is gone.
    """
    wanted = _noted(directory)
    if wanted is None or wanted == _identity("/proc/self/ns/user"):
        return
    # The process may be in a namespace of its own, below that of the container, and so may others
    # be that have all capabilities there: it is no place for a process that has the host's files.
    outer = _above(pid, lambda found: found == wanted)
    if outer is None:
        return
    try:
        if _LIBC.setns(outer, _CLONE_NEWUSER) == 0:
            _LIBC.unshare(_CLONE_NEWNS)
            _keep_capabilities()
    finally:
        os.close(outer)


def is_as_begun(pid: int, directory: str) -> bool:
    """Return whether a container's first process is in the user namespace in which it began.

    That is a child of the one that its runtime is in. False if the process is gone.
    """
    parent = _above(pid, lambda found: True)
    if parent is None:
        return False
    try:
        return _identity(parent) == _noted(directory)
    finally:
        os.close(parent)


def _above(pid: int, is_wanted: Callable[[tuple[int, int]], bool]) -> int | None:
    """Return the nearest user namespace above that of a process that is wanted, open, or None."""
    try:
        found = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    while True:
        try:
            outer = ioctl(found, _NS_GET_PARENT)
        except OSError:
            # It is that of the caller.
            return None
        finally:
            os.close(found)
        if is_wanted(_identity(outer)):
            return outer
        found = outer


def _noted(directory: str) -> tuple[int, int] | None:
    try:
        device, inode = _read(os.path.join(directory, _NOTE)).split()
    except (OSError, ValueError):
        return None
    return int(device), int(inode)


def _identity(name: str | int) -> tuple[int, int]:
    """Return by what a namespace is known. Raises OSError."""
    found = os.stat(name)
    return found.st_dev, found.st_ino


def _keep_capabilities() -> None:
    """Let these capabilities survive execve(2): capabilities(7), "Ambient"."""
    header = _words(_LINUX_CAPABILITY_VERSION_3, 0)
    inheritable = sum(1 << capability for capability in _KEPT)
    # Effective, permitted and inheritable, the low half of each, then the high ones.
    every = _EVERY_CAPABILITY
    if _LIBC.capset(header, _words(every, every, inheritable, 0, 0, 0)) == 0:
        for capability in _KEPT:
            _LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def _words(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, sys.byteorder) for value in values)


def _may_trace() -> bool:
    if os.geteuid() != 0:
        return False
    effective = _read("/proc/self/status").partition(b"\nCapEff:")[2].split(b"\n", 1)[0]
    return bool(int(effective, 16) >> _CAP_SYS_PTRACE & 1)


def _is_restricted() -> bool:
    """Return whether AppArmor takes the capabilities in a new user namespace away.

    Ubuntu does so from 23.10 on, but for the programs that it has a profile of; the
    runtimes are among these, Python is not.
    """
    try:
        return _read(_APPARMOR_SWITCH).strip() == b"1"
    except OSError:
        return False


def _has_profile(runtime: str) -> bool:
    """Return whether AppArmor is likely to have a profile of the program ``runtime``.

    The profiles that are loaded are root's to read.  Those of Ubuntu are for what the
    distribution installs, in files of the program's name.
    """
    if not runtime:
        return True
    name = os.path.basename(runtime)
    return runtime.startswith("/usr/") and os.path.exists(os.path.join(_APPARMOR_PROFILES, name))


def _read(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 1 << 14)
    finally:
        os.close(file)


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(file)
