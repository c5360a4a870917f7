"""The command line: runc's, with everything but a few commands handed on.

This process becomes the runtime (execve(2)) as soon as there is nothing left to
do, so process ID, terminal, signals and exit code are the runtime's.
"""

from __future__ import annotations

import os
import sys

from runrootless import inheritance, interrupts, runtimes
from runrootless.command_line import runc as command_line
from runrootless.containers import state
from runrootless.errors import Error, one_line
from runrootless.invocation import STARTS_NOTHING, Invocation, become

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from runrootless.command_line.runc import Parsed
    from runrootless.runtimes import Runtime


# Those that are handed on as they are.
_OF_RUNTIMES = frozenset(
    {"checkpoint", "completion", "events", "features", "help", "h", "mounts", "pause", "ps"}
    | {"restore", "resume", "spec", "start", "update"}
)
_WITH_RUNTIME = ("create", "delete", "exec", "kill", "list", "run", "state")
# Which take more than a runtime tells of.
_WITH_FLAGS = ("create", "exec", "run")
_WITHOUT_RUNTIME = (
    *("attach", "bundle", "commit", "doctor", "emulate", "export"),
    *("hook", "setup"),
)


def run() -> NoReturn:
    """Do what the command line says, and exit."""
    interrupts.leave_to_the_kernel()
    inheritance.put_right()
    code: object = 1
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    for stream in (sys.stdout, sys.stderr):
        try:
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
        if options.error:
            from runrootless.command_line import own

            own.require_flags(options, own.GLOBAL, command_line.GLOBAL)
        if not options.error:
            if options.is_on("version"):
                return _version(options)
            if options.is_on("help") or options.arguments in ([], ["help"], ["h"]):
                return _help()
            if _asks_for_help(options.arguments):
                return _help_of(options.arguments)
            if options.arguments[0] in _WITHOUT_RUNTIME:
                return _without_runtime(options)
            if options.arguments[0] == "ps":
                from runrootless.command_line import own

                own.require_container(options.arguments[1:])
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

            traceback.print_exception(type(failure), failure, failure.__traceback__)
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
    elif invocation.command.startswith("-"):
        # To the runtime it would be one more flag, or the end of them, before a command.
        raise Error(f"there is no command {invocation.command}: flags come before one --", 3)
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
        _suggest(invocation.command)
        if invocation.command in STARTS_NOTHING or _restores_without(invocation):
            command = invocation.unchanged()
        else:
            # A runtime may have it, and start processes by it.
            command = invocation.refused()
    become(command, invocation.runtime.called)


def _suggest(name: str) -> None:
    """Raise ``Error`` for a command that nobody has, but that is like one of ours."""
    from runrootless.command_line import own

    own.require_command(name, (*_WITHOUT_RUNTIME, *_OF_RUNTIMES, *_WITH_RUNTIME))


def _restores_without(invocation: Invocation) -> bool:
    """Return whether a command is ``restore``, and told to go without an engine.

    Raises ``Error`` for one that is not, but for a question about its flags.
    """
    if invocation.command != "restore" or {"--help", "-h"} & {*invocation.arguments}:
        return False
    wish = invocation.options.get("engine") or os.environ.get("RUNROOTLESS_ENGINE", "")
    if wish != "none":
        raise Error(
            "restore starts processes for which no engine emulates root: take --engine none"
        )
    return True


def _proot_command(invocation: Invocation) -> int | None:
    from runrootless.proot_runtime import commands

    return commands.do(invocation)


def _without_runtime(options: Parsed) -> int:
    """Do a command that needs no runtime; return its exit code. Raises ``Error``, ``OSError``."""
    from importlib import import_module

    command: Any = import_module(f"runrootless.commands.{options.arguments[0]}")
    code: int = command.run(options)
    return code


def _help() -> int:
    from runrootless.command_line.usage import of_program

    sys.stdout.write(of_program())
    return 0


def _asks_for_help(words: Sequence[str]) -> bool:
    """Return whether a command line is for the help of a command whose flags are known here."""
    return (words[0] in _WITH_FLAGS and words[1:2] in (["--help"], ["-h"])) or (
        words[0] in ("help", "h") and words[1] in (*_WITH_FLAGS, *_WITHOUT_RUNTIME)
    )


def _help_of(words: Sequence[str]) -> int:
    from runrootless.command_line.manual import command
    from runrootless.command_line.usage import of_command

    sys.stdout.write(of_command(command(words[1] if words[0] in ("help", "h") else words[0])))
    return 0


def _version(options: Parsed) -> int:
    from runrootless import __version__

    sys.stdout.write(f"runrootless version {__version__}\n")
    sys.stdout.flush()
    runtime = runtimes.choose(options.get("runtime"))
    become([runtime.path, "--version"], runtime.called)
    return 0
