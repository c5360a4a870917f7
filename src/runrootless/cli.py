"""The command line: runc's, with everything but a few commands handed on.

This process becomes the runtime (execve(2)) as soon as there is nothing left to
do, so process ID, terminal, signals and exit code are the runtime's.
"""

from __future__ import annotations

import os
import sys

from runrootless import interrupts, runtimes
from runrootless.command_line import runc as command_line
from runrootless.containers import state
from runrootless.errors import Error, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from runrootless.command_line.runc import Flags, Parsed
    from runrootless.runtimes import Runtime


_WITHOUT_RUNTIME = ("emulate", "doctor", "setup", "bundle")
_STARTING = ("run", "create")
# Nothing can be made there. The name is for whoever reads the runtime's error.
_NO_ROOT = "--root=/proc/runrootless does not know one of these flags"


class Invocation:
    """One call of this command.

    ``options`` are the global flags, ``command`` the subcommand, ``arguments``
    what follows it.  ``directory`` is the container directory that must go if the
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

        Raises ``Error`` if it would be in a private directory that is not private.
        """
        given = self.options.get("root")
        if given:
            return os.path.abspath(given)
        if is_real_root():
            return self.runtime.default_root()
        directory = state.own_runtime_directory() or state.open_base()
        return os.path.join(directory, self.runtime.name)

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
        words = [self.runtime.path, *self.options.without("runtime", "engine")]
        # Always said: left to themselves runtimes disagree, and runc fails for
        # a caller without XDG_RUNTIME_DIR.
        if not self.options.get("root") and not is_real_root():
            words.append(f"--root={self.state_root()}")
        return [*words, self.command, *arguments]

    def unchanged(self) -> list[str]:
        """Return the runtime's command line for what the caller typed."""
        if not self.options.error:
            return self.runtime_command(self.arguments)
        # The runtime is to find the mistake, which is in the global flags.
        words = self.options.without("runtime", "engine")
        for word in self.options.arguments:
            words += [_NO_ROOT, word] if word in _STARTING else [word]
        return [self.runtime.path, *words]

    def refused(self) -> list[str]:
        """Return the runtime's command line for what it is to refuse, with whatever mistake.

        Where it finds none it fails all the same: no container is started without an engine.
        """
        words = self.options.without("runtime", "engine", "root")
        return [self.runtime.path, *words, _NO_ROOT, self.command, *self.arguments]


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


def run() -> NoReturn:
    """Do what the command line says, and exit."""
    interrupts.leave_to_the_kernel()
    code: object = 1
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    for stream in (sys.stdout, sys.stderr):
        try:
            # There is none where its descriptor was closed from the beginning.
            if stream is not None:
                stream.flush()
        except OSError:
            # Nobody reads it any more.
            code = code or 1
    os._exit(code if isinstance(code, int) else 1 if code else 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what ``arguments`` (default: the command line) say; return the exit code.

    Does not return where the runtime takes over.
    """
    if arguments is None:
        arguments = sys.argv[1:]
    options = command_line.parse(command_line.GLOBAL, arguments)
    invocation = None
    try:
        if options.error:
            options = _as_gnu(arguments) or options
        if not options.error:
            if options.is_on("version"):
                return _version(options)
            if options.is_on("help") or options.arguments in ([], ["help"], ["h"]):
                return _help()
            if options.arguments[0] in _WITHOUT_RUNTIME:
                return _without_runtime(options)
        invocation = Invocation(options, _runtime(options))
        _execute(invocation)
        return 0
    except (Exception, KeyboardInterrupt) as error:
        # What is no Error was not foreseen where it happened, but a user is not to see
        # a traceback for it.
        failure = error
    if invocation is not None and invocation.directory is not None:
        state.remove_container_directory(invocation.directory)
    interrupts.let_through()
    try:
        if options.is_on("debug"):
            import traceback

            traceback.print_exception(failure)
        if isinstance(failure, KeyboardInterrupt):
            return 130
        message = one_line(failure)
        if options.arguments[:1] and options.arguments[0] in _WITHOUT_RUNTIME:
            # Nobody calls these in place of a runtime.
            sys.stderr.write(f"runrootless: {message}\n")
            return failure.exit_code if isinstance(failure, Error) else 1
        from runrootless.report import report

        report(message, options.get("log"), options.get("log-format"))
    except (OSError, MemoryError):
        # What is in the way of the work may be in the way of saying so as well.
        _say_plainly(failure)
    if options.arguments[:1] == ["exec"]:
        # As runc: the others are the codes of the process itself.
        return 255
    return failure.exit_code if isinstance(failure, Error) else 1


def _say_plainly(failure: BaseException) -> None:
    try:
        os.write(2, f"runrootless: {failure}\n".encode("utf-8", "replace"))
    except (OSError, MemoryError):
        pass


def _as_gnu(arguments: Sequence[str]) -> Parsed | None:
    """Return the global flags where they are spelt as a runtime takes them that is not Go's.

    Raises ``Error`` if there is no runtime.
    """
    from runrootless.command_line import gnu as gnu_command_line

    options = gnu_command_line.parse(command_line.GLOBAL, arguments)
    if options.error or _runtime(options).takes_go_flags_only():
        return None
    return options


def _runtime(options: Parsed) -> Runtime:
    """Return the runtime to take; where none could start, one that need not be there."""
    name = options.get("runtime") or os.environ.get("RUNROOTLESS_RUNTIME", "")
    try:
        return runtimes.choose(name)
    except Error:
        from runrootless.runtimes import user_namespace

        if name or user_namespace.can_be_made():
            raise
        return runtimes.Runtime("runc")


def _execute(invocation: Invocation) -> None:
    """Become the runtime; raises ``Error`` and ``OSError`` if that does not come off."""
    if invocation.options.error:
        command = invocation.unchanged()
    elif invocation.command in ("run", "create"):
        from runrootless.commands import run as run_command

        command = run_command.prepare(invocation)
    elif state.has_proot_containers() and (code := _proot_command(invocation)) is not None:
        raise SystemExit(code)
    elif invocation.command == "exec":
        from runrootless.commands import exec as exec_command

        command = exec_command.prepare(invocation)
    elif invocation.command in ("state", "list"):
        from runrootless.commands import state as state_command

        command = state_command.prepare(invocation)
    elif invocation.command == "delete":
        from runrootless.commands import delete as delete_command

        command = delete_command.prepare(invocation)
    elif invocation.command == "kill":
        from runrootless.commands import kill as kill_command

        command = kill_command.prepare(invocation)
    else:
        command = invocation.unchanged()
    become(command, invocation.runtime.called)


def _proot_command(invocation: Invocation) -> int | None:
    from runrootless.proot_runtime import commands

    return commands.do(invocation)


def become(command: list[str], called: str) -> None:
    """Execute ``command`` (a path and its arguments) in place of this process.

    ``called`` is the name that the program is told.  Raises ``Error`` if it cannot be
    executed.
    """
    restore_signals()
    try:
        os.execv(command[0], [called, *command[1:]])
    except OSError as error:
        raise Error(f"cannot execute the runtime {command[0]}: {error.strerror}") from None


def restore_signals() -> None:
    """Undo what Python did to signals: ignored ones would stay ignored over execve(2)."""
    # The C half of the module "signal", which imports enum.
    _signal = __import__("_signal")
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)


def _without_runtime(options: Parsed) -> int:
    """Do a command that needs no runtime; return its exit code. Raises ``Error``, ``OSError``."""
    if options.arguments[0] == "emulate":
        from runrootless.commands import emulate as emulate_command

        return emulate_command.run(options)
    if options.arguments[0] == "setup":
        from runrootless.commands import setup

        return setup.main(options.arguments[1:])
    if options.arguments[0] == "bundle":
        from runrootless.commands import bundle

        return bundle.main(options.arguments[1:])
    from runrootless.commands import doctor as doctor_command

    return doctor_command.run(options)


def _help() -> int:
    from runrootless.command_line.usage import USAGE

    sys.stdout.write(USAGE)
    return 0


def _version(options: Parsed) -> int:
    from runrootless import __version__

    sys.stdout.write(f"runrootless version {__version__}\n")
    sys.stdout.flush()
    runtime = runtimes.choose(options.get("runtime"))
    become([runtime.path, "--version"], runtime.called)
    return 0
