"""What no runtime can tell of a command line: commands and flags that none has."""

from __future__ import annotations

import sys

from runrootless.command_line import runc
from runrootless.errors import Error, suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrootless.command_line.runc import Flags, Parsed


GLOBAL = ("runtime", "engine", "fast-path")
"""The global flags that are not the runtime's."""

STARTING = ("network", "dns")
"""Those of ``run`` and ``create``."""

# What is typed by who knows the commands of Docker, and what does that here.
_OF_DOCKER = {
    "build": "`bundle`, `run` and `commit` make an image of another",
    "images": "images become bundles at once, by `bundle`; `list` tells of containers",
    "pull": "`bundle` makes a bundle of an image",
    "push": "`commit` writes an image, and to docker://HOST/NAME as well",
    "rm": "`delete` removes a container",
    "save": "`commit` writes an image, and `export` a tarball",
    "stop": "`kill` sends a container a signal",
    "up": "`run` starts a container",
}
_SEE = "see `runrootless --help`"


def require_command(name: str, names: Sequence[str]) -> None:
    """Raise ``Error`` for a command that is not meant, but that is like one of ``names``.

    One that is like none may be the runtime's own.
    """
    if name in names:
        return
    if name in _OF_DOCKER:
        raise Error(f"there is no command {name}: {_OF_DOCKER[name]}: {_SEE}", 3)
    meant = suggestion(name, names)
    if meant:
        raise Error(f"there is no command {name}{meant}", 3)


def require_container(arguments: Sequence[str]) -> None:
    """Raise ``Error`` for the arguments of a ``ps`` that is to be as Docker's."""
    if list(arguments[:1]) in ([], ["-a"], ["--all"]):
        raise Error(f"ps takes a CONTAINER, and `list` tells of all: {_SEE}")


def require_flags(parsed: Parsed, ours: Sequence[str], flags: Flags | None = None) -> None:
    """Raise ``Error`` for one of our flags without a value, and what is like one of ``flags``.

    All else that is wrong is the runtime's to tell of.
    """
    word = parsed.arguments[0] if parsed.error and parsed.arguments else ""
    spelling, equals, _ = word.lstrip("-").partition("=")
    if spelling in ours and not equals and len(parsed.arguments) == 1:
        from runrootless.command_line.manual import CHOICES

        choices = f", one of {', '.join(CHOICES[spelling])}" if spelling in CHOICES else ""
        raise Error(f"{word} takes a value{choices}")
    if flags is None or not word.startswith("--"):
        return
    # The beginning of one is that flag to some runtimes.
    if any(one.startswith(spelling) for one in flags.names if one not in ours):
        return
    meant = suggestion(spelling, flags.names, "--")
    if meant:
        raise Error(f"there is no flag {word}{meant}")


def parse(
    name: str, flags: Flags, words: Sequence[str], arguments: str = "", count: int = 0
) -> Parsed | None:
    """Take the words behind a command's name apart; None where its help was asked for, and told.

    ``arguments`` says which there must be, ``count`` how many: those before which flags
    may stand. There may be others behind them where it ends in dots. Raises ``Error``.
    """
    parsed = runc.parse(flags, words)
    found: list[str] = []
    while not parsed.error and not parsed.is_on("help") and len(found) < count:
        if not parsed.arguments:
            break
        argument, *rest = parsed.arguments
        found.append(argument)
        if len(found) == count and arguments.endswith("..."):
            parsed.arguments = rest[1:] if rest[:1] == ["--"] else rest
            break
        more = runc.parse(flags, rest)
        parsed.flags += more.flags
        parsed.arguments, parsed.error = more.arguments, more.error
    if parsed.is_on("help"):
        from runrootless.command_line.manual import command
        from runrootless.command_line.usage import of_command

        sys.stdout.write(of_command(command(name)))
        return None
    more_help = f"see `runrootless {name} --help`"
    if parsed.error:
        mistake = _mistake(flags, parsed.arguments[0])
        more_help = f" S{more_help[1:]}" if mistake.endswith("?") else f": {more_help}"
        raise Error(f"{name}: {mistake}{more_help}")
    if len(found) < count:
        raise Error(f"{name} takes {arguments.removesuffix(' ...')}: {more_help}")
    if parsed.arguments and not arguments.endswith("..."):
        raise Error(f"{name} does not take {parsed.arguments[0]}: {more_help}")
    parsed.arguments[:0] = found
    return parsed


def require_choice(flag: str, value: str) -> None:
    """Raise ``Error`` for what is not among the values that a flag takes."""
    from runrootless.command_line.manual import CHOICES

    if value not in CHOICES[flag]:
        raise Error(
            f"--{flag} takes {', '.join(CHOICES[flag])}, not {value}"
            f"{suggestion(value, CHOICES[flag])}"
        )


def _mistake(flags: Flags, word: str) -> str:
    spelling, equals, value = word.lstrip("-").partition("=")
    name = flags.names.get(spelling)
    if name is None:
        return f"there is no flag {word}{suggestion(spelling, flags.names, '--')}"
    if name in flags.switches:
        return f"{word}: --{name} takes true, false or nothing, not {value}"
    return f"{word} takes a value, once" if not equals else f"{word} is there twice"
