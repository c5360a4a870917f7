"""``emulate``: a command of the host, to which its user is root.

This process becomes the command (execve(2)), so process ID, terminal, signals and exit
code are the command's. The exit codes besides are those of env(1) and chroot(1).
"""

from __future__ import annotations

import errno
import os

from runrootless import engines, inheritance, launcher
from runrootless.command_line import own
from runrootless.command_line.runc import EMULATE
from runrootless.errors import Error, one_line
from runrootless.runtimes import user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.command_line.runc import Parsed
    from runrootless.engines import Choice

FAILED = 125
"""Exit code where the command is not come to."""

NOT_EXECUTED = 126
"""Exit code where it is there and cannot be executed."""

NOT_FOUND = 127
"""Exit code where it is not there."""

# Programs of which there is an integration: containers/storage.
_WITH_IMAGES = ("podman", "buildah")
_PATH = "/usr/local/bin:/usr/bin:/bin"
# What the PATH of a root login has besides, for debootstrap, chroot, ldconfig, …
_OF_ROOT = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def run(options: Parsed) -> int:
    """Become the command; return only where nothing but the usage was asked for.

    Raises ``Error`` if the command cannot be had, or root cannot be emulated.
    """
    try:
        words = options.arguments[1:]
        parsed = own.parse("emulate", EMULATE, words, "[COMMAND [ARGUMENT ...]] ...")
    except Error as error:
        raise Error(str(error), FAILED) from None
    if parsed is None:
        return 0
    command = parsed.arguments or [os.environ.get("SHELL") or "/bin/sh"]
    os.environ["PATH"] = _path_of_root(os.environ.get("PATH", _PATH))
    try:
        choice = _choose(parsed.get("engine") or options.get("engine"))
        if choice.name in engines.WITH_LISTENER:
            _prepare(command[0], options)
        before = choice.engine.emulate(
            options.get("log"),
            options.get("log-format"),
            options.is_on("debug"),
            launcher.command_words(FAILED, NOT_EXECUTED, NOT_FOUND),
        )
    except (Error, OSError) as error:
        raise Error(one_line(error), FAILED) from error
    return _become([*before, *command])


def _path_of_root(path: str) -> str:
    """Return a PATH with the directories of root's programs, those that it lacks at the end."""
    given = path.split(":")
    return ":".join([*given, *(one for one in _OF_ROOT if one not in given)])


def _choose(name: str) -> Choice:
    choice = engines.choose(name, "")
    if choice.automatic and choice.name == "notify" and not user_namespace.can_be_made():
        return engines.Choice("proot", engines.load("proot"), "", True)
    return choice


def _prepare(program: str, options: Parsed) -> None:
    """Record the owners in images that were unpacked when nothing recorded them.

    What copies files of theirs would make root's files of them. Raises SystemExit, the reason
    being told, where that fails.
    """
    if os.path.basename(program) not in _WITH_IMAGES:
        return
    from runrootless.engines.notify_host import become_root
    from runrootless.integrations import podman
    from runrootless.report import report

    # As root of a user namespace, and before any call is intercepted.
    child = os.fork()
    if child:
        if os.waitpid(child, 0)[1]:
            raise SystemExit(FAILED)
        return
    try:
        become_root()
        podman.restore_owners()
        os._exit(0)
    except (Error, OSError) as error:
        report(str(error), options.get("log"), options.get("log-format"))
    finally:
        os._exit(1)


def _become(command: list[str]) -> int:
    """Execute a command as execvp(3) does. Raises ``Error``."""
    from runrootless.invocation import restore_signals

    restore_signals()
    inheritance.give_back()
    name = command[0]
    paths = [name]
    if "/" not in name:
        path = os.environ["PATH"]
        paths = [os.path.join(directory, name) for directory in path.split(":")] if name else []
    refusal = None
    for path in paths:
        try:
            os.execv(path, command)
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                # A script that does not say what runs it.
                os.execv("/bin/sh", ["sh", path, *command[1:]])
            if error.errno == errno.ENOSYS:
                raise Error("the agent that emulates root has ended: see --log", FAILED) from None
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                refusal = refusal or error
    if refusal is not None:
        raise Error(f"cannot execute {name}: {refusal.strerror}", NOT_EXECUTED)
    raise Error(f"{name} is not found", NOT_FOUND)
