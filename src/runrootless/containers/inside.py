"""What is to be known of a container before something is executed in it: as seen from within.

The first process may have changed its root; a runtime begins at that of the mount namespace.
"""

from __future__ import annotations

import os

from runrootless.containers.background import said_by_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_YES, _NO = "yes", "no"
_ROOT_INODE = 1


def is_so(pid: int, question: Callable[[], bool]) -> bool | None:
    """Return the answer to a question that is asked in the mount namespace of ``pid``.

    It is asked by another process, from that namespace's root on, and may raise. None is where
    there is no answer.
    """
    answer = said(pid, lambda: _YES if question() else _NO)
    return {_YES: True, _NO: False}.get(answer)


def said(pid: int, question: Callable[[], str | None]) -> str:
    """Return the answer to a question that is asked as by ``is_so``; empty where there is none."""

    def ask() -> str:
        # Modules that are imported later would be the container's.
        __import__("runrootless.linux.files")
        enter(pid)
        return question() or ""

    text, status = said_by_child(ask)
    return "" if status else text


def enter(pid: int) -> None:
    """Join the user and the mount namespace of ``pid``, in a process made for that.

    Raises OSError as open(2) and setns(2).
    """
    from runrootless.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, setns
    from runrootless.linux.process import set_dumpable

    user, mounts = (os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in ("user", "mnt"))
    # In there others may have all capabilities, and this process still has the host's root.
    set_dumpable(False)
    try:
        setns(user, CLONE_NEWUSER)
    except OSError:
        # This process is in it already.
        pass
    setns(mounts, CLONE_NEWNS)


def has_procfs() -> bool:
    """Return whether the root directory of a procfs is at /proc."""
    from runrootless.linux.files import is_procfs

    try:
        file = os.open("/proc", os.O_PATH)
    except OSError:
        return False
    return os.fstat(file).st_ino == _ROOT_INODE and is_procfs(file)
