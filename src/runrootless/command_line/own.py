"""The command lines of commands that no runtime has."""

from __future__ import annotations

import sys

from runrootless.command_line import runc
from runrootless.errors import Error, suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrootless.command_line.runc import Flags, Parsed


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
        raise Error(f"{name}: {_mistake(flags, parsed.arguments[0])}: {more_help}")
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
