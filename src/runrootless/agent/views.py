"""The files that a worker sees: joining the container, and entering a caller's view.

A worker's root is the container's and its working directory is the /proc of its own
pid namespace, through which it reaches the processes. A process that has changed its
root or its mount namespace is followed there for the time of one call.
"""

from __future__ import annotations

import errno
import os

from runrootless.agent.ledger import VARIED
from runrootless.linux.files import O_PATH, open_directory, place
from runrootless.linux.namespaces import CLONE_FS, CLONE_NEWNS, CLONE_NEWUSER, setns, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.call import Call, Handler


class ViewLostError(BaseException):
    """The agent does not see the container any more, and must not go on."""


class Views:
    """What the workers of a container, and their threads, share of the view of files.

    ``processes`` is a descriptor of the /proc directory of the agent's pid namespace, and
    ``header`` memory that all workers share.
    """

    def __init__(self, processes: int, header: memoryview) -> None:
        self.processes = processes
        self.namespace = -1
        self.namespace_link = ""
        self.root = b""
        self._root = self._user = -1
        self._header = header

    @property
    def varied(self) -> bool:
        """Whether some process may have another root or mount namespace than the container's."""
        return bool(self._header[VARIED])

    @varied.setter
    def varied(self, value: bool) -> None:
        self._header[VARIED] = value

    def find(self, pid: int) -> list[int]:
        """Take hold of the namespaces and the root of a container's process.

        Return the descriptors, for code that closes others. Raises OSError as open(2) says.
        """
        os.chdir(self.processes)
        self._user = os.open(f"{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        self.namespace = os.open(f"{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._root = os.open(f"{pid}/root", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return [self._user, self.namespace, self._root]

    def is_of_this_user_namespace(self) -> bool:
        """Return whether the container is in this process's user namespace. Raises OSError."""
        return os.fstat(self._user).st_ino == os.stat("self/ns/user").st_ino

    def join(self) -> None:
        """Join the namespaces of the container, and take its root for this process's.

        To be done while there is just one thread. Raises OSError as setns(2) says.
        """
        if not self.is_of_this_user_namespace():
            setns(self._user, CLONE_NEWUSER)
        os.close(self._user)
        setns(self.namespace, CLONE_NEWNS)
        os.chdir(self._root)
        os.chroot(".")
        os.chdir(self.processes)
        self.namespace_link = os.readlink("self/ns/mnt")
        self.root = b"self/fd/%d" % self._root

    def of_this_thread(self) -> View:
        """Return a view that the calling thread, not the first one, may change by itself.

        Raises OSError as unshare(2) says.
        """
        unshare(CLONE_FS)
        return View(self)

    def open_outside(self, pid: int, path: str) -> int:
        """Return a descriptor (O_PATH) of a directory of a process's mount namespace.

        ``path`` is looked up from the root of the namespace, not from the process's; the view
        taken is that process's, or the container's if that is the same. Raises OSError, and
        ViewLostError if the view is not to be had again.
        """
        root = os.open("/", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            namespace = os.open(f"{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(namespace, CLONE_NEWNS)
            finally:
                os.close(namespace)
            try:
                file = open_directory(os.fsencode(path))
                if file < 0:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                return file
            finally:
                self._return_to(root)
        finally:
            os.close(root)

    def _return_to(self, root: int) -> None:
        try:
            os.chdir(self.processes)
            os.chroot(f"self/fd/{root}")
        except OSError as error:
            raise ViewLostError(str(error)) from error


class View:
    """What one thread sees: the container's files, but for the time of a call."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._root = place(views.root)
        self._elsewhere = False

    def handle(self, handler: Handler, call: Call) -> int | None:
        """Return what a handler says to a call, while it sees what the caller does.

        Raises what the handler does, OSError where the caller is gone, and ViewLostError.
        """
        if not self._enter(call.pid):
            return handler(call)
        try:
            return handler(call)
        finally:
            self._leave()

    def _enter(self, pid: int) -> bool:
        """Take the view of a process if it is another one; return whether it is."""
        try:
            other_namespace = os.readlink(f"{pid}/ns/mnt") != self._views.namespace_link
        except PermissionError:
            # The runtime itself, about to execute a program in the container: it cannot be
            # looked at, and it has the container's own view.
            return False
        # Not by its name: that of a mount's root is "/" as well once it is detached.
        if not other_namespace and place(b"%d/root" % pid) == self._root:
            return False
        if other_namespace:
            namespace = os.open(f"{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(namespace, CLONE_NEWNS)
            finally:
                os.close(namespace)
            self._elsewhere = True
            os.chdir(self._views.processes)
        try:
            os.chroot(f"{pid}/root")
        except OSError:
            self._leave()
            raise
        return True

    def _leave(self) -> None:
        try:
            if self._elsewhere:
                setns(self._views.namespace, CLONE_NEWNS)
                self._elsewhere = False
                os.chdir(self._views.processes)
            os.chroot(self._views.root)
        except OSError as error:
            raise ViewLostError(str(error)) from error
