"""The text of ``--help``, of all and of each command."""

from __future__ import annotations

import textwrap

from runrootless.command_line.manual import COMMANDS, GROUPS, PROGRAM, Command

_WIDTH = 80
_INDENT = "   "
_OPTION_COLUMN = 27


def of_program() -> str:
    """Return what ``runrootless --help`` prints: the commands in groups, as runc has them."""
    lines = [
        "NAME:",
        f"{_INDENT}runrootless - {PROGRAM.summary}",
        "",
        "USAGE:",
        f"{_INDENT}runrootless [GLOBAL FLAG ...] {PROGRAM.arguments}",
        "",
        *_paragraph(PROGRAM.description),
        "",
    ]
    for group in GROUPS:
        lines.append(f"COMMANDS, {group}:")
        for one in COMMANDS:
            if one.group == group:
                lines.append(f"{_INDENT}{one.name:12}{one.summary}")
        lines.append("")
    lines += ["GLOBAL FLAGS:", *_options(PROGRAM), *_parts(PROGRAM)]
    lines += ["", "`runrootless COMMAND --help` tells of a command."]
    return "\n".join(lines) + "\n"


def of_command(one: Command) -> str:
    """Return what ``runrootless COMMAND --help`` prints."""
    lines = [
        "NAME:",
        f"{_INDENT}runrootless {one.name} - {one.summary}",
        "",
        "USAGE:",
        f"{_INDENT}{synopsis(one)}",
        "",
        *_paragraph(one.description),
        "",
        "FLAGS:",
        *_options(one),
        *_parts(one),
    ]
    return "\n".join(lines) + "\n"


def synopsis(one: Command) -> str:
    """Return how a command is called."""
    return f"runrootless {one.name} {one.arguments}".rstrip()


def _options(one: Command) -> list[str]:
    lines = []
    for spellings, value, text in one.options():
        head = _INDENT + ", ".join(spellings) + (f" {value}" if value else "")
        if len(head) > _OPTION_COLUMN - 2:
            lines.append(head)
            head = ""
        indent = " " * _OPTION_COLUMN
        lines += _wrap(text, head.ljust(_OPTION_COLUMN), indent)
    return lines


def _parts(one: Command) -> list[str]:
    lines = []
    for title, text in one.parts:
        lines += ["", f"{title.upper()}:", *_paragraph(text)]
    return lines


def _paragraph(text: str) -> list[str]:
    """Return text in lines; what is indented already stays as it is."""
    if text.startswith(" "):
        return [line[len(_INDENT) - 2 :] for line in text.split("\n")]
    return _wrap(text, _INDENT, _INDENT)


def _wrap(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
