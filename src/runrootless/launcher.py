"""The launcher, native/launcher.c, which runs before an emulated program, and its orders.

It is a file in memory that the program's process gets as a descriptor, and executes by the
name of that in /proc. So nothing of it is in a root file system, no directory there has to
allow programs to be executed, and when the program begins the launcher is gone.
"""

from __future__ import annotations

import _socket
import os
import sys
from errno import (
    E2BIG,
    EACCES,
    EINVAL,
    EIO,
    EISDIR,
    ELIBBAD,
    ELOOP,
    EMFILE,
    ENAMETOOLONG,
    ENFILE,
    ENOENT,
    ENOEXEC,
    ENOMEM,
    ENOSYS,
    ENOTDIR,
    EPERM,
    ETXTBSY,
)
from fcntl import F_DUPFD_CLOEXEC, fcntl

from runrootless.bundle.json_file import write_all
from runrootless.containers.state import at_socket
from runrootless.errors import Error, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from runrootless.runtimes import Runtime

_FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "native")
_MAXIMUM_FILTER = 4096 * 8
_MAXIMUM_WORDS = 4096
_MFD_CLOEXEC, _MFD_EXEC = 1, 0x10
_SPEC_ALLOW, _NEW_LISTENER, WAIT_KILLABLE_RECV = 4, 8, 32
# As the launcher calls what is no error of the kernel's.
_NOT_IN_PATH, _NO_FILTER, _NO_AGENT, _OTHER_LISTENER = 254, 253, 252, 251
_MISSING, _CLOSED = 250, 249
_NO_FILTER_TEXT = (
    "runrootless: the seccomp filter that emulates root cannot be installed: seccomp(2) is "
    "forbidden here, or the kernel has no listeners, which takes Linux 5.9"
)
_OTHER_LISTENER_TEXT = (
    "runrootless: another program has a seccomp listener here, and there can be one only"
)
_NO_AGENT_TEXT = "runrootless: the agent that emulates root has ended before it began: see --log"
_ENDED = "the agent that emulates root has ended: see --log"

FLAGS: Final = {
    "notify": _SPEC_ALLOW | _NEW_LISTENER | WAIT_KILLABLE_RECV,
    "thorough": _SPEC_ALLOW | _NEW_LISTENER | WAIT_KILLABLE_RECV,
    "zero": _SPEC_ALLOW,
}
"""The name of each filter, which is that of its engine, to the flags it is installed with. One
that the kernel does not know, WAIT_KILLABLE_RECV before Linux 5.19, is done without."""


class Words:
    """The launcher's error texts and exit codes, for programs that cannot be executed.

    ``texts`` maps an errno number, or one of the launcher's own numbers, to the exit code and
    the texts before and after the program's name; without a text after it the name is left out.
    ``other`` is the same for all other errors. ``failed`` is the exit code if no filter can be
    installed.
    """

    __slots__ = ("_packed",)

    def __init__(
        self, texts: dict[int, tuple[int, str, str]], other: tuple[int, str, str], failed: int
    ) -> None:
        self._packed = b"".join(
            b"%c%c%b\0%b\0" % (number, code, before.encode(), behind.encode())
            for number, (code, before, behind) in (
                *texts.items(),
                (_NO_FILTER, (failed, _NO_FILTER_TEXT, "")),
                (_OTHER_LISTENER, (failed, _OTHER_LISTENER_TEXT, "")),
                (_NO_AGENT, (failed, _NO_AGENT_TEXT, "")),
                (0, other),
            )
        )

    def __bytes__(self) -> bytes:
        return self._packed


# Those that execve(2) has.
_ERRORS: tuple[int, ...] = (
    EPERM,
    ENOENT,
    EIO,
    E2BIG,
    ENOEXEC,
    ENOMEM,
    EACCES,
    ENOTDIR,
    EISDIR,
    EINVAL,
)
_ERRORS += (ENFILE, EMFILE, ETXTBSY, ENAMETOOLONG, ELOOP, ELIBBAD)


def runtime_words(name: str, is_exec: bool) -> Words:
    """Return how the runtime of a name says it, with its exit code, also where it is ``exec``."""
    texts = {number: os.strerror(number) for number in _ERRORS}
    texts[ENOSYS] = _ENDED
    texts[_NOT_IN_PATH] = "executable file not found in $PATH"
    other = "cannot be executed"
    looked_for = {
        _MISSING: (127 if is_exec else 1, 'exec: "', f'": {os.strerror(ENOENT).lower()}'),
        _CLOSED: (126 if is_exec else 1, 'exec: "', f'": {os.strerror(EACCES).lower()}'),
    }
    if name == "crun" and is_exec:
        return Words(
            {number: (1, f"exec: {text}", "") for number, text in texts.items()} | looked_for,
            (1, f"exec: {other}", ""),
            1,
        )
    if name == "crun":
        before = "exec container process `"
        entries = {number: (1, before, f"`: {text}") for number, text in texts.items()}
        missing = "exec container process (missing dynamic library?) `"
        entries[ENOENT] = 1, missing, f"`: {texts[ENOENT]}"
        return Words(entries | looked_for, (1, before, f"`: {other}"), 1)
    # As Go's syscall package spells them.
    entries = {
        number: (1, "exec ", f": {text[0].lower()}{text[1:]}") for number, text in texts.items()
    }
    return Words(entries | looked_for, (1, "exec ", f": {other}"), 1)


def command_words(failed: int, not_executed: int, not_found: int) -> Words:
    """Return how a command of ours says it, with its exit codes."""
    texts = {number: os.strerror(number) for number in _ERRORS}
    texts[ENOSYS] = _ENDED
    before = "runrootless: cannot execute "
    entries = {number: (not_executed, before, f": {text}") for number, text in texts.items()}
    entries[_CLOSED] = not_executed, before, f": {os.strerror(EACCES)}"
    for number in (ENOENT, ENOTDIR, _NOT_IN_PATH, _MISSING):
        entries[number] = not_found, "runrootless: ", " is not found"
    return Words(entries, (not_executed, before, ": unknown error"), failed)


def path(descriptor: int) -> str:
    """Return how a process executes the launcher that it has as a descriptor."""
    return f"/proc/self/fd/{descriptor}"


def make(
    name: str,
    words: Words,
    program: bytes = b"",
    runs_scripts: bool = False,
    without: int = 0,
    is_hook: bool = False,
    others: tuple[int, int] = (0, 0),
    replacement: tuple[bytes, bytes] = (b"", b""),
) -> int:
    """Return a descriptor of a launcher with the filter of an engine, or that in ``program``.

    With ``runs_scripts`` sh(1) runs what has no format, and ``without`` are flags of seccomp(2)
    that are not asked for. With ``is_hook`` the program's own name follows the program;
    ``others`` are the first and the number of the descriptors that are to be closed besides its
    own, and ``replacement`` is made in the standard input. Raises Error where there
    is no launcher for this machine, and none can be made.
    """
    program = program or read(f"{name}.bpf")
    image = read("launcher")
    packed = bytes(words)
    if len(program) > _MAXIMUM_FILTER or len(packed) > _MAXIMUM_WORDS:
        raise Error(f"the filter {name} is too long")
    # Without the module "struct", which takes a while to import.
    order = b"".join(
        number.to_bytes(4, sys.byteorder)
        for number in (
            FLAGS[name] & ~without,
            len(program),
            len(packed),
            int(runs_scripts),
            int(is_hook),
            *others,
            *map(len, replacement),
        )
    )
    try:
        file = _create_executable()
        try:
            # The limit of file sizes (RLIMIT_FSIZE) cuts it, and half a launcher crashes.
            write_all(file, b"".join((image, order, program, packed, *replacement)))
            os.lseek(file, len(image), os.SEEK_SET)
        except OSError:
            os.close(file)
            raise
    except OSError as error:
        raise Error(f"no file in memory for the launcher: {one_line(error)}") from None
    return file


def read(name: str) -> bytes:
    """Return what is in a file that is made when the package is built.

    Raises Error where there is none for this machine.
    """
    try:
        file = os.open(f"{_FILES}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(file, os.fstat(file).st_size)
        finally:
            os.close(file)
    except FileNotFoundError as error:
        raise Error(
            f"{error.filename} is missing: system calls of {os.uname().machine} are not emulated "
            "yet, or runrootless was not installed as a package: use --engine proot"
        ) from None


def first_free(preserved: int, runtime: Runtime) -> int:
    """Return the number of the first descriptor that a runtime closes, or makes use of itself.

    ``preserved`` is how many ``--preserve-fds`` passes on; it passes those of socket activation,
    sd_listen_fds(3), as well.
    """
    listening = os.environ.get("LISTEN_FDS", "")
    if not (listening.isascii() and listening.isdigit()):
        return 3 + preserved
    if runtime.name == "runc" and os.environ.get("LISTEN_PID") != str(os.getpid()):
        return 3 + preserved
    return 3 + int(listening) + preserved


def passing(count: int) -> list[str]:
    """Return the flag with which a runtime passes descriptors on."""
    return [f"--preserve-fds={count}"] if count else []


def size(name: str) -> int:
    """Return how many descriptors a launcher with the filter of an engine is."""
    return 2 if FLAGS[name] & _NEW_LISTENER else 1


def hand_in(
    name: str,
    runtime: Runtime,
    is_exec: bool,
    socket: str,
    first: int,
    program: bytes,
    hooks: int = 0,
    replacement: tuple[bytes, bytes] = (b"", b""),
) -> int:
    """Give the runtime, which this process becomes, a launcher to pass on; return how many files.

    It is the descriptor ``first``; ``is_exec`` is whether it is for a further process of a
    container, ``name`` that of its engine, ``program`` its filter, and
    ``socket`` the path of the agent's. Behind it there is one for each of so many hooks that
    the container's first process executes, in whose states ``replacement`` is made. Raises Error.
    """
    others = (first, (1 + hooks) * size(name)) if hooks else (0, 0)
    words = runtime_words(runtime.name, is_exec)
    behind: list[int] = []
    try:
        if hooks:
            hook = make(name, words, program, is_hook=True, others=others, replacement=replacement)
            place = os.lseek(hook, 0, os.SEEK_CUR)
        for number in range(hooks):
            # Each reads for itself.
            one = os.open(path(hook), os.O_RDONLY | os.O_CLOEXEC) if number else hook
            os.lseek(one, place, os.SEEK_SET)
            behind += _with_connection(name, one, socket)
        # The agent takes connections one after the other, and the hooks come first.
        launcher = make(name, words, program, others=others)
        put([*_with_connection(name, launcher, socket), *behind], first)
    except (OSError, OverflowError) as error:
        raise Error(f"no file descriptor {first} for the launcher: {one_line(error)}") from None
    return (1 + hooks) * size(name)


def _with_connection(name: str, launcher: int, socket: str) -> list[int]:
    return [launcher, connect(socket)] if FLAGS[name] & _NEW_LISTENER else [launcher]


def connect(path: str) -> int:
    """Return a descriptor of a connection to an agent, of its socket's path. Raises Error."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        at_socket(path, connection.connect)
    except OSError as error:
        connection.close()
        raise Error(
            f"the agent that emulates root cannot be reached, {path}: {error.strerror}: see --log"
        ) from None
    return connection.detach()


def put(files: list[int], first: int) -> None:
    """Let the program that this process becomes have descriptors as ``first`` and so on.

    What had those numbers here, and would be closed then, is closed now. Raises OSError.
    """
    # None of them is to be closed by another.
    files = [fcntl(file, F_DUPFD_CLOEXEC, first + len(files)) for file in files]
    for number, file in enumerate(files, first):
        os.dup2(file, number)


def put_aside(files: list[int]) -> int:
    """Do as ``put`` at numbers that nobody uses; return the first one. Raises OSError."""
    first = 3
    while any(_is_open(number) for number in range(first, first + len(files))):
        first += 1
    put(files, first)
    return first


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _create_executable() -> int:
    """Return a descriptor of an empty file in memory. Raises OSError as memfd_create(2)."""
    try:
        return os.memfd_create("runrootless", _MFD_CLOEXEC | _MFD_EXEC)
    except OSError as error:
        # Before Linux 6.3, where every one of them is executable.
        if error.errno != EINVAL:
            raise
    return os.memfd_create("runrootless", _MFD_CLOEXEC)
