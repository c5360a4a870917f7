"""Man pages: man(7)."""

from __future__ import annotations

import re
import textwrap

from runrootless.command_line.manual import COMMANDS, GROUPS, PROGRAM, Command


def pages(version: str, date: str) -> dict[str, str]:
    """Return the text of each page, by the name of its file."""
    found = {"runrootless.1": _page("runrootless", PROGRAM, version, date)}
    for one in COMMANDS:
        if one.flags is not None:
            name = f"runrootless-{one.name}"
            found[f"{name}.1"] = _page(name, one, version, date)
    return found


def _page(name: str, one: Command, version: str, date: str) -> str:
    lines = [
        f'.TH {name.upper()} 1 {date} "runrootless {version}" "User Commands"',
        ".SH NAME",
        f"{_plain(name)} \\- {_text(one.summary)}",
        ".SH SYNOPSIS",
        ".B runrootless",
        *_wrapped(f"[\\fIGLOBAL FLAG\\fR ...] {_synopsis(one)}"),
        ".SH DESCRIPTION",
        _text(one.description),
    ]
    if one is PROGRAM:
        lines += _commands()
    lines.append(".SH OPTIONS")
    for spellings, value, text in one.options():
        head = ", ".join(f"\\fB{_text(spelling)}\\fR" for spelling in spellings)
        lines += [".TP", head + (f" \\fI{_text(value)}\\fR" if value else ""), _text(text)]
    for title, text in one.parts:
        lines.append(f".SH {title.upper()}")
        if text.startswith(" "):
            lines += [".EX", *(_plain(line) for line in text.split("\n")), ".EE"]
        else:
            lines.append(_text(text))
    others = [PROGRAM, *(other for other in COMMANDS if other.flags is not None)]
    names = [_plain("-".join(filter(None, ("runrootless", other.name)))) for other in others]
    own = _plain(name)
    lines.append(".SH SEE ALSO")
    lines += [f".BR {other} (1)," for other in names if other != own]
    lines[-1] = lines[-1].rstrip(",")
    return "\n".join(lines) + "\n"


def _commands() -> list[str]:
    lines = [".SH COMMANDS"]
    for group in GROUPS:
        lines.append(f".SS {group.capitalize()}")
        for one in COMMANDS:
            if one.group == group:
                lines += [".TP", f".B {one.name}", _text(one.summary)]
                if one.flags is not None:
                    lines[-1] += f";\nsee \\fBrunrootless\\-{one.name}\\fR(1)"
    lines.append(".PP")
    lines.append(
        _text("The commands of which there is no page are the runtime's alone: see `runc`(8).")
    )
    return lines


def _synopsis(one: Command) -> str:
    words = _plain(one.arguments)
    words = re.sub(r"\b[A-Z]{3,}\b", lambda found: f"\\fI{found[0]}\\fR", words)
    return f"\\fB{one.name}\\fR {words}" if one.name else words


def _plain(text: str) -> str:
    """Return a line as roff shows it unchanged."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    text = text.replace("`", "\\(ga")
    return f"\\&{text}" if text.startswith((".", " ")) else text


def _text(text: str) -> str:
    """Return text as roff fills it, a line for each sentence, commands in backquotes in bold."""
    plain = re.sub(r"`([^`]*)`", "\x01\\1\x02", text)
    plain = _plain(plain).replace("\x01", "\\fB").replace("\x02", "\\fR")
    sentences = re.sub(r"([a-z0-9)R]\.) (?=[A-Z])", "\\1\n", plain).split("\n")
    return "\n".join(line for one in sentences for line in _wrapped(one))


def _wrapped(text: str) -> list[str]:
    """Return lines of which none is a request for beginning with a full stop."""
    lines = textwrap.wrap(text, 78, break_long_words=False, break_on_hyphens=False)
    return [f"\\&{line}" if line.startswith(".") else line for line in lines]
