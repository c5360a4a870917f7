"""What /proc says of other processes: proc(5). Paths are relative to the /proc directory."""

from __future__ import annotations

import os


def read_status(pid: int) -> bytes:
    """Return the text of PID/status. Raises OSError where the process is gone."""
    return _read(b"%d/status" % pid)


def status_fields(text: bytes, key: bytes) -> list[bytes]:
    """Return the words behind ``key`` in the text of a status file."""
    return text.partition(b"\n%b:" % key)[2].partition(b"\n")[0].split()


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
    text = _read(b"self/fdinfo/%d" % descriptor)
    return int(text.partition(b"mnt_id:")[2].split(maxsplit=1)[0])


def memory_layout(pid: int) -> bytes:
    """Return what a successful execve(2) changes: where code, stack and arguments begin.

    Fields 26 to 28 and 45 to 51 of PID/stat. Raises OSError where the process is gone.
    """
    fields = _read(b"%d/stat" % pid).rpartition(b")")[2].split()
    return b" ".join(fields[23:26] + fields[42:49])


def _read(name: bytes) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)
