"""Which files are in a procfs, and which process its links mean.

``self`` in a procfs is the process that resolves it, and so are links below it: for the agent
they would be the agent's own. So paths in a procfs are resolved for the caller, by number.
"""

from __future__ import annotations

import os

from runrootless.linux.files import handle, is_procfs, open_directory
from runrootless.linux.mounts import clone_mount, mounted
from runrootless.linux.processes import read_status, status_fields

ROOT_INODE = 1
"""``PROC_ROOT_INO``: the inode of every procfs's root directory."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SELF, _THREAD_SELF = b"self", b"thread-self"


class Procfs:
    """What the agent knows of the procfs of a container, and of others.

    The working directory is the /proc of the agent's own pid namespace.
    """

    def __init__(self) -> None:
        self._agent_device = self._device = -1
        self._processes = -1
        self._is_hidden = False
        self._root_device = -1
        self.shows_agent = True
        """Whether some procfs that is mounted in the container shows the agent."""

    def look(self) -> None:
        """Find out what is procfs, once the agent has joined the container. Raises OSError."""
        self._agent_device = self._device = os.stat(".").st_dev
        self._root_device = os.stat("/").st_dev
        processes = open_directory(b"/proc")
        if processes >= 0 and is_procfs(processes):
            try:
                # What is mounted in there later is not in the way.
                self._processes = clone_mount(processes)
            except OSError:
                self._processes = processes
            self._device = os.fstat(processes).st_dev
            self._is_hidden = not self._shows_agent(processes)
        self.shows_agent = not self._is_hidden or any(
            device != self._device for _, device, kind in mounted() if kind == b"proc"
        )

    def concerns(self, device: int) -> bool:
        """Return whether a file on this device may be a process's, of those that are emulated."""
        return device == self._device or device == self._agent_device

    def is_agents(self, device: int) -> bool:
        """Return whether the numbers in a procfs are the agent's own."""
        return device == self._agent_device

    def contains(self, file: int, device: int) -> bool:
        """Return whether an open file, which is on ``device``, is of a procfs."""
        if self.concerns(device):
            return True
        if os.major(device) or device == self._root_device:
            # Those with a device of their own are none.
            return False
        try:
            # Each time: when one is unmounted another one gets its number.
            return is_procfs(file)
        except OSError:
            # Its server is gone, or does not want to say: a procfs has none.
            return False

    def misleads(self, file: int, device: int) -> bool:
        """Return whether a file, which is on ``device``, may be the agent's, not the caller's.

        That is in each procfs, except for the container's where the agent is not in it.
        """
        if device == self._device and self._is_hidden:
            return False
        return self.contains(file, device)

    def directory(self, number: bytes) -> bytes:
        """Return a name of the directory that the container's /proc has for a process.

        It is relative to the working directory.
        """
        return b"%b/%b" % (handle(self._processes), number)

    def number(self, path: bytes, file: os.stat_result) -> bytes:
        """Return the number of the thread or process that a file is about, in its procfs.

        ``path`` is where the file is, ``file`` what stat(2) says of it. Raises ValueError if it
        is none's.
        """
        root = None if self.is_agents(file.st_dev) else self._processes
        parts = path.split(b"/")
        for at, part in enumerate(parts):
            # Directories above may have numbers for names as well.
            if part.isdigit() and _is_at(root, b"/".join(parts[at:]), file):
                if parts[at + 1 : at + 2] == [b"task"] and parts[at + 2 : at + 3]:
                    # A thread has a directory of its own beside those of processes, too.
                    return parts[at + 2]
                return part
        raise ValueError(path)

    def link_text(self, root: int, name: bytes, caller: int) -> bytes | None:
        """Return what ``self`` and ``thread-self`` say to a thread in the root of a procfs.

        None for other names. Raises OSError: ENOENT where the procfs does not show the thread.
        """
        if name not in (_SELF, _THREAD_SELF):
            return None
        process, thread = self._numbers(root, caller)
        return process if name == _SELF else b"%b/task/%b" % (process, thread)

    def is_of_agent(self, directory: int) -> bool:
        """Return whether a directory of links in a procfs is the agent's."""
        # Nothing that names lead to from there tells it: mounts may cover that.
        status = os.fstat(directory)
        root = None
        if status.st_dev == self._agent_device:
            root = b"."
        elif status.st_dev == self._device:
            root = handle(self._processes)
        if root is not None:
            return any(_is_at(None, path, status) for path in _link_directories(root))
        for name in ("status", "../status"):
            try:
                text = _read_at(directory, name)
            except OSError:
                continue
            return status_fields(text, b"NStgid")[-1:] == status_fields(
                read_status(os.getpid()), b"NStgid"
            )[-1:] and _namespace_at(directory, name) == os.readlink("self/ns/pid")
        return False

    def is_of_caller(self, directory: int, caller: int) -> bool:
        """Return whether a directory of links in a procfs is that of a thread or its process.

        Raises OSError where the thread is gone.
        """
        found = os.fstat(directory)
        if found.st_dev == self._agent_device:
            root, base = os.open(".", os.O_RDONLY | os.O_CLOEXEC), b"."
        elif found.st_dev == self._device:
            root, base = os.dup(self._processes), handle(self._processes)
        else:
            return False
        try:
            process, thread = self._numbers(root, caller)
        except FileNotFoundError:
            return False
        finally:
            os.close(root)
        names = (process, thread, b"%b/task/%b" % (process, thread))
        return any(
            _is_at(None, path, found)
            for name in names
            for path in _with_links(b"%b/%b" % (base, name))
        )

    def _numbers(self, root: int, caller: int) -> tuple[bytes, bytes]:
        """Return a thread's process and its own number in a procfs. Raises OSError: ENOENT."""
        status = read_status(caller)
        processes, threads = status_fields(status, b"NStgid"), status_fields(status, b"NSpid")
        if self.is_agents(os.fstat(root).st_dev):
            return processes[0], threads[0]
        namespace = os.readlink(b"%d/ns/pid" % caller)
        # The innermost numbers first: most processes see a procfs of their own namespace.
        for depth in reversed(range(len(processes))):
            number = processes[depth]
            try:
                text = _read_at(root, b"%b/status" % number)
                if (
                    status_fields(text, b"NStgid") == processes[depth:]
                    and os.readlink(b"%b/ns/pid" % number, dir_fd=root) == namespace
                ):
                    return number, threads[depth]
            except OSError:
                # That number is none in there, or somebody else's.
                continue
        raise FileNotFoundError(2, os.strerror(2))

    def _shows_agent(self, root: int) -> bool:
        try:
            os.readlink(_SELF, dir_fd=root)
        except OSError:
            return False
        return True


def _link_directories(root: bytes) -> Iterator[bytes]:
    """Return names of all directories with magic links of this process, and of its parent's.

    ``root`` is a name of the root of a procfs that shows them.
    """
    process = os.readlink(root + b"/self")
    parents = status_fields(read_status(os.getpid()), b"PPid")
    for number in (process, *parents):
        tasks = b"%b/%b/task" % (root, number)
        try:
            threads = os.listdir(tasks)
        except OSError:
            continue
        for thread in threads:
            # The number of a thread is a name in the root as well.
            for directory in (b"%b/%b" % (root, thread), b"%b/%b" % (tasks, thread)):
                yield from _with_links(directory)


def _with_links(directory: bytes) -> Iterator[bytes]:
    """Return names of the directories with magic links of the thread that has a directory."""
    yield directory
    for name in (b"fd", b"ns", b"map_files"):
        yield b"%b/%b" % (directory, name)


def _is_at(root: int | None, path: bytes, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path, dir_fd=root, follow_symlinks=False), file)
    except OSError:
        return False


def _read_at(directory: int, name: bytes | str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    with open(fd, "rb", buffering=0) as file:
        return file.readall()


def _namespace_at(directory: int, status: str) -> str:
    return os.readlink(f"{os.path.dirname(status) or '.'}/ns/pid", dir_fd=directory)
