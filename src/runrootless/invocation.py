"""One call of this command, and what becomes of its process."""

from __future__ import annotations

# The C half of the module "signal", which imports enum.
import _signal  # type: ignore[import-not-found]
import os

from runrootless import inheritance
from runrootless.command_line import runc as command_line
from runrootless.containers import state
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.command_line.runc import Flags, Parsed
    from runrootless.runtimes import Runtime

STARTS_NOTHING = frozenset(
    {"checkpoint", "completion", "delete", "events", "features", "help", "h", "kill", "list"}
    | {"mounts", "pause", "ps", "resume", "spec", "start", "state", "update"}
)
"""The commands of runtimes that make no process, but for those that ``create`` has prepared.

Every other one, known or not, is to have a container only if the engine is in it.
"""

# The global flags that no runtime has.
_OURS = ("runtime", "engine", "fast-path")
# Nothing can be made or found there. The name appears in the runtime's error.
_NO_ROOT = "--root=/proc/runrootless does not know one of these flags"


class Invocation:
    """One call of this command.

    ``options`` are the global flags, ``command`` the subcommand, ``arguments``
    what follows it.  ``directory`` is the private directory to remove if the
    runtime is not started after all.
    """

    __slots__ = ("arguments", "command", "directory", "options", "runtime")

    def __init__(self, options: Parsed, runtime: Runtime) -> None:
        self.options = options
        self.runtime = runtime
        self.command = options.arguments[0] if options.arguments else ""
        self.arguments = options.arguments[1:]
        self.directory: str | None = None

    def state_root(self) -> str:
        """Return the absolute path of the directory where the runtime keeps its state.

        It is free of symlinks, so that one directory has one name. Raises ``Error`` if it would
        be in a private directory that is not private.
        """
        given = self.options.get("root")
        if given:
            return os.path.realpath(given)
        if is_real_root():
            return os.path.realpath(self.runtime.default_root())
        directory = state.own_runtime_directory() or state.open_base()
        return os.path.realpath(os.path.join(directory, self.runtime.name))

    def parse(self, flags: Flags, flags_anywhere: bool = False, count: int | None = None) -> Parsed:
        """Return the subcommand's arguments, taken apart as the runtime would do it.

        ``flags_anywhere`` is for the commands of runc that take flags behind the
        container ID as well, ``count`` how many arguments there must be. What the runtime
        would refuse but another one take counts as that does.
        """

        def as_go() -> Parsed:
            words = self.arguments
            if flags_anywhere:
                words = command_line.flags_first(flags, words)
            return command_line.parse(flags, words)

        def as_gnu() -> Parsed:
            from runrootless.command_line import gnu as gnu_command_line

            return gnu_command_line.parse(flags, self.arguments)

        ways = [as_go] if self.runtime.takes_go_flags_only() else [as_go, as_gnu]
        if self.runtime.takes_gnu_flags_first():
            ways.reverse()
        first = None
        for way in ways:
            parsed = way()
            if not parsed.error and (count is None or len(parsed.arguments) == count):
                return parsed
            first = first or parsed
        assert first is not None
        return first

    def runtime_command(self, arguments: list[str]) -> list[str]:
        """Return the runtime's command line for this subcommand with other arguments."""
        words = [self.runtime.path, *self.options.without(*_OURS, "root")]
        # Always said: left to themselves runtimes disagree, and runc fails for a caller without
        # XDG_RUNTIME_DIR. And said last: to crun 1.8 --rootless is another name of --root.
        if self.options.get("root") or not is_real_root():
            words.append(f"--root={self.state_root()}")
        return [*words, self.command, *arguments]

    def unchanged(self) -> list[str]:
        """Return the runtime's command line for what the caller typed."""
        if not self.options.error:
            return self.runtime_command(self.arguments)
        # The runtime is to find the mistake, which is in the global flags.
        words = self.options.without(*_OURS)
        for word in self.options.arguments:
            # Which one is the command depends on flags that are not known here.
            words += [_NO_ROOT, word] if _may_start(word) else [word]
        return [self.runtime.path, *words]

    def refused(self) -> list[str]:
        """Return the runtime's command line for what it is to refuse, with whatever mistake.

        Where it finds none it fails nevertheless: no container is started without an engine.
        """
        words = self.options.without(*_OURS, "root")
        return [self.runtime.path, *words, _NO_ROOT, self.command, *self.arguments]


def _may_start(word: str) -> bool:
    """Return whether a word of a command line may be a command that starts a process."""
    return word[:1] != "-" and "/" not in word and word not in STARTS_NOTHING


def is_real_root() -> bool:
    """Return whether the caller is root and not merely in a user namespace of its own."""
    if os.geteuid() != 0:
        return False
    try:
        file = os.open("/proc/self/uid_map", os.O_RDONLY)
    except OSError:
        return True
    try:
        return os.read(file, 4096).split() == [b"0", b"0", b"4294967295"]
    finally:
        os.close(file)


def become(command: list[str], called: str) -> None:
    """Execute ``command`` (a path and its arguments) in place of this process.

    ``called`` is the name that the program is told.  Raises ``Error`` if it cannot be
    executed.
    """
    restore_signals()
    inheritance.pass_on()
    try:
        os.execv(command[0], [called, *command[1:]])
    except OSError as error:
        raise Error(f"cannot execute the runtime {command[0]}: {error.strerror}") from None


def restore_signals() -> None:
    """Undo what Python did to signals: ignored ones would stay ignored over execve(2)."""
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
