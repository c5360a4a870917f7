"""Whose files the agent sees: joining the container, and following a process elsewhere.

The agent's root is the container's and its working directory is the /proc of its own
pid namespace, through which it reaches the processes. A process that has changed its
root or its mount namespace is followed there for the time of one call.
"""

from __future__ import annotations

import os

from runrootless.linux.files import O_PATH
from runrootless.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, setns


class ViewLostError(BaseException):
    """The agent does not see the container any more, and must not go on."""


class Views:
    """The agent's view of files.

    ``processes`` is a descriptor of the /proc directory of the agent's pid namespace.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._namespace = -1
        self._namespace_link = ""
        self._root = b""
        self._elsewhere = False
        self.varied = False
        """Whether some process may have another root or mount namespace than the container's."""

    def join(self, pid: int) -> None:
        """Join the user and mount namespaces of a container's process.

        Raises OSError as open(2) and setns(2) say.
        """
        os.chdir(self._processes)
        user = os.open(f"{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        self._namespace = os.open(f"{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.readlink(f"{pid}/ns/user") != os.readlink("self/ns/user"):
                setns(user, CLONE_NEWUSER)
        finally:
            os.close(user)
        setns(self._namespace, CLONE_NEWNS)
        os.chdir(self._processes)
        self._namespace_link = os.readlink("self/ns/mnt")
        root = os.open("/", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._root = b"self/fd/%d" % root

    def enter(self, pid: int) -> bool:
        """Take the view of a process if it is another one; return whether it is.

        Raises OSError where the process is gone.
        """
        try:
            other_namespace = os.readlink(f"{pid}/ns/mnt") != self._namespace_link
        except PermissionError:
            # The runtime itself, about to execute a program in the container: it cannot be
            # looked at, and it has the container's own view.
            return False
        if not other_namespace and os.readlink(f"{pid}/root") == "/":
            return False
        if other_namespace:
            namespace = os.open(f"{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(namespace, CLONE_NEWNS)
            finally:
                os.close(namespace)
            self._elsewhere = True
            os.chdir(self._processes)
        try:
            os.chroot(f"{pid}/root")
        except OSError:
            self.leave()
            raise
        return True

    def leave(self) -> None:
        """Return to the container's own view. Raises ViewLostError if that does not work."""
        try:
            if self._elsewhere:
                setns(self._namespace, CLONE_NEWNS)
                self._elsewhere = False
                os.chdir(self._processes)
            os.chroot(self._root)
        except OSError as error:
            raise ViewLostError(str(error)) from error
