"""Flags as getopt_long(3) takes them, and with it crun.

``-bDIR``, ``-dt`` and ``--bund DIR`` are spellings that Go's parser refuses, and ``-b=DIR`` is
one that it takes for another directory.
"""

from __future__ import annotations

from runrootless.command_line.runc import Flags, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# What crun has besides, for the commands that take a bundle.
_CONFIG = "config"
_SHORT_CONFIG = "f"
_HELP = ("usage", "?")
# What crun does not have is never what a part of a name stands for.
_NOT_OF_CRUN = frozenset(
    {"runtime", "engine", "network", "dns", "criu", "keep", "pidfd-socket", "ignore-paused"}
    | {"additional-gids"}
)


class _MistakeError(Exception):
    """A flag that getopt_long(3) would refuse."""


def parse(flags: Flags, words: Sequence[str]) -> Parsed:
    """Take ``words`` apart as crun does; flags come first (ARGP_IN_ORDER)."""
    names = dict(flags.names)
    if "bundle" in names:
        names.update({_CONFIG: _CONFIG, _SHORT_CONFIG: _CONFIG})
        # crun's create takes it as well.
        names["no-subreaper"] = "no-subreaper"
    names.update(dict.fromkeys(_HELP, "help"))
    parsed = Parsed(flags.switches | {"no-subreaper"})
    rest = list(words)
    while rest and len(rest[0]) > 1 and rest[0][0] == "-":
        if rest[0] == "--":
            del rest[0]
            break
        take = _long if rest[0].startswith("--") else _short
        try:
            rest = take(names, parsed, rest)
        except _MistakeError:
            parsed.error = True
            break
    parsed.arguments = rest
    return parsed


def _long(names: dict[str, str], parsed: Parsed, words: list[str]) -> list[str]:
    """Take the first of ``words``, a flag with two dashes; return the words behind it."""
    spelling, equals, value = words[0][2:].partition("=")
    name = names.get(spelling, "") if len(spelling) > 1 else ""
    if not name:
        meant = {names[name] for name in names if len(name) > 1 and name.startswith(spelling)}
        meant -= _NOT_OF_CRUN
        name = meant.pop() if len(meant) == 1 else ""
    if not name or (equals and name in parsed.switches):
        raise _MistakeError
    rest = words[1:]
    if name in parsed.switches:
        value = "true"
    elif not equals:
        value, rest = _first(rest)
    parsed.flags.append((name, value))
    return rest


def _short(names: dict[str, str], parsed: Parsed, words: list[str]) -> list[str]:
    """Take the first of ``words``, a dash and letters; return the words behind it."""
    letters, rest = words[0][1:], words[1:]
    while letters:
        name = names.get(letters[0])
        if name is None:
            raise _MistakeError
        value, letters = letters[1:], ""
        if name in parsed.switches:
            value, letters = "true", value
        elif not value:
            value, rest = _first(rest)
        parsed.flags.append((name, value))
    return rest


def _first(words: list[str]) -> tuple[str, list[str]]:
    if not words:
        raise _MistakeError
    return words[0], words[1:]
