"""What /proc says of other processes: proc(5). Paths are relative to the /proc directory."""

from __future__ import annotations

import errno
import os
from fcntl import ioctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# <linux/nsfs.h>: the parent of a pid namespace, see ioctl_ns(2).
_NS_GET_PARENT = 0xB702
# The same, Linux 6.12: what a thread of another pid namespace is called in the caller's own.
_NS_GET_PID_FROM_PIDNS = 0x8004B706
_PART = 4096
# What kernels say that do not know a request.
_NOT_KNOWN = (errno.ENOTTY, errno.EINVAL)


def find_process(caller: int, pid: int) -> int:
    """Return the thread that a thread knows as ``pid``, 0 being itself.

    Both know it as the same where they are in one pid namespace; the caller's may be
    one below that of /proc. Raises OSError: ESRCH where it knows none.
    """
    if pid == 0:
        return caller
    text = read_status(caller)
    numbers = status_fields(text, b"NSpid")
    depth = len(numbers) - 1
    wanted = b"%d" % pid
    if numbers[depth] == wanted:
        return caller
    if depth == 0:
        if pid > 0 and os.path.exists(b"%d" % pid):
            return pid
        raise _no_process()
    try:
        return _translate(caller, pid)
    except OSError as error:
        if error.errno not in _NOT_KNOWN:
            raise
    namespace = os.readlink(b"%d/ns/pid" % caller)
    own = int(status_fields(text, b"Tgid")[0])
    names = [b"%d" % thread for thread in threads(own)]
    names += [name for name in os.listdir(b".") if name.isdigit()]
    for name in names:
        try:
            if (
                status_fields(_read(b"%b/status" % name), b"NSpid")[depth:] == [wanted]
                and os.readlink(b"%b/ns/pid" % name) == namespace
            ):
                return int(name)
        except OSError:
            # It has ended, or is somebody else's.
            pass
    raise _no_process()


def _translate(caller: int, pid: int) -> int:
    """Return the thread that is called ``pid`` in a thread's pid namespace, asking the kernel.

    Raises OSError: ESRCH; ENOTTY, EINVAL before Linux 6.12.
    """
    fd = os.open(b"%d/ns/pid" % caller, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = int(ioctl(fd, _NS_GET_PID_FROM_PIDNS, pid))
    finally:
        os.close(fd)
    if found <= 0:
        raise _no_process()
    return found


def _no_process() -> ProcessLookupError:
    return ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def visible_processes(caller: int) -> Iterator[int]:
    """Return the processes that kill(2) with -1 means: those that a thread's pid namespace shows.

    Without the first one in it, and the thread's own. Raises OSError where the thread is gone.
    """
    own = status_fields(read_status(caller), b"Tgid")
    for pid, number, text in seen_processes(caller):
        if number != b"1" and status_fields(text, b"Tgid") != own:
            yield pid


def seen_processes(caller: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Return each process that a thread's pid namespace shows.

    With its number in there, and the text of its status file. Raises OSError where the thread
    is gone.
    """
    depth = len(status_fields(read_status(caller), b"NSpid")) - 1
    namespace = os.stat(f"{caller}/ns/pid").st_ino
    for name in os.listdir("."):
        if not name.isdigit():
            continue
        try:
            text = read_status(int(name))
            numbers = status_fields(text, b"NSpid")
            above = len(numbers) - 1 - depth
            if above >= 0 and (not depth or _pid_namespace(name, above) == namespace):
                yield int(name), numbers[depth], text
        except OSError:
            # It has ended, or is somebody else's.
            continue


def group_members(caller: int, number: int) -> list[int]:
    """Return the processes of a process group that a thread knows as ``number``, 0 its own.

    Raises OSError: ESRCH where it knows none.
    """
    group = os.getpgid(caller) if number == 0 else _find_group(caller, number)
    found = []
    for name in os.listdir(b"."):
        try:
            if name.isdigit() and os.getpgid(int(name)) == group:
                found.append(int(name))
        except OSError:
            # It has ended.
            pass
    return found


def _find_group(caller: int, number: int) -> int:
    try:
        return find_process(caller, number)
    except ProcessLookupError:
        # Its leader has ended.
        wanted = b"%d" % number
        depth = len(status_fields(read_status(caller), b"NSpid")) - 1
        for pid, _, text in seen_processes(caller):
            if status_fields(text, b"NSpgid")[depth] == wanted:
                return os.getpgid(pid)
        raise


def has_ended(pid: int) -> bool:
    """Return whether a process's first thread has ended, though others of it may not have."""
    try:
        return _read(b"%d/stat" % pid).rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


def session(pid: int) -> bytes:
    """Return the session ID of a process. Raises OSError where it is gone."""
    return _read(b"%d/stat" % pid).rpartition(b")")[2].split()[3]


def _pid_namespace(name: str, above: int) -> int:
    """Return the inode of a process's pid namespace, or of one that is so many levels above."""
    fd = os.open(f"{name}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _ in range(above):
            outer = ioctl(fd, _NS_GET_PARENT)
            os.close(fd)
            fd = outer
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def read_status(pid: int) -> bytes:
    """Return the text of PID/status. Raises OSError where the process is gone."""
    return _read(b"%d/status" % pid)


def status_fields(text: bytes, key: bytes) -> list[bytes]:
    """Return the words behind ``key`` in the text of a status file."""
    return text.partition(b"\n%b:" % key)[2].partition(b"\n")[0].split()


def shares_user_namespace(pid: int) -> bool:
    """Return whether a thread is in this process's user namespace.

    Raises OSError where it is gone, or cannot be looked at: EACCES.
    """
    return os.stat(f"{pid}/ns/user").st_ino == os.stat("self/ns/user").st_ino


def pending_signals(pid: int) -> tuple[int, int]:
    """Return the signals that a thread is to get, as bit sets: its own, and its process's.

    Those that it blocks are left out. Raises OSError where it is gone.
    """
    text = read_status(pid)
    own, shared, blocked = (
        int(status_fields(text, key)[0], 16) for key in (b"SigPnd", b"ShdPnd", b"SigBlk")
    )
    return own & ~blocked, shared & ~blocked


def creation_mask(pid: int) -> int:
    """Return the file mode creation mask of a process: umask(2). Raises OSError: ENOENT."""
    return int(status_fields(read_status(pid), b"Umask")[0], 8)


def descriptor_flags(pid: int, descriptor: int) -> int:
    """Return the flags that a descriptor of a process was opened with: open(2).

    Raises OSError where it is not open.
    """
    text = _read(b"%d/fdinfo/%d" % (pid, descriptor))
    return int(text.partition(b"flags:")[2].split(maxsplit=1)[0], 8)


def descriptor_mount(descriptor: int) -> int:
    """Return the number of the mount that a descriptor of this process's own leads to.

    Raises OSError where it is not open.
    """
    return _mount("self", descriptor)


def open_mounts(process: str) -> list[int]:
    """Return the numbers of the mounts that a process's open files are on, one for each of them.

    As far as this one may look. The working directory is a /proc.
    """
    found = []
    try:
        descriptors = os.listdir(f"{process}/fdinfo")
    except OSError:
        # It has ended, or is not to be looked at.
        return []
    for descriptor in descriptors:
        try:
            found.append(_mount(process, descriptor))
        except OSError:
            continue
    return found


def _mount(process: str, descriptor: str | int) -> int:
    text = _read(f"{process}/fdinfo/{descriptor}".encode())
    return int(text.partition(b"mnt_id:")[2].split(maxsplit=1)[0])


def start_time(pid: int) -> bytes:
    """Return when a thread was started, in clock ticks since boot. Raises OSError if it is gone."""
    # What is in parentheses may have spaces.
    return _read(b"%d/stat" % pid).rpartition(b")")[2].split()[19]


def thread_count(pid: int) -> int:
    """Return how many threads the process of a thread has. Raises OSError where it is gone."""
    return os.stat(b"%d/task" % pid).st_nlink - 2


def threads(pid: int) -> list[int]:
    """Return the threads of a thread's process. Raises OSError where it is gone."""
    return [int(name) for name in os.listdir(b"%d/task" % pid)]


def timer_slack(directory: bytes) -> int:
    """Return the timer slack in nanoseconds of the thread whose directory in /proc is given.

    prctl(2), PR_SET_TIMERSLACK: each thread's own, and inherited. Raises OSError.
    """
    return int(_read(b"%b/timerslack_ns" % directory))


def set_timer_slack(pid: int, nanoseconds: int) -> None:
    """Set the timer slack of a thread; 0 restores its default. Raises OSError: EPERM, ENOENT."""
    fd = os.open(b"%d/timerslack_ns" % pid, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % nanoseconds)
    finally:
        os.close(fd)


def _read(name: bytes) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = part = os.read(fd, _PART)
        # The groups of a process alone may take more.
        while len(part) == _PART:
            part = os.read(fd, _PART)
            text += part
        return text
    finally:
        os.close(fd)
