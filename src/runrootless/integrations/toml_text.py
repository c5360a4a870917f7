"""Changing single settings in the text of a TOML file, and taking that back.

The text around them, comments too, stays as its author wrote it. A line of ours ends in
a comment that says so, and what it stands in place of, so that the file itself is all
that is needed to undo the change. After each change the text is parsed and compared with
what was wanted: where the file is written in a way that this does not understand, it is
an error and not a damaged file.
"""

from __future__ import annotations

import json
import re

from runrootless.errors import Error
from runrootless.toml_file import NoTomlError, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MARK = ' # by "runrootless setup"'
_INSTEAD = " in place of "


def get(settings: dict[str, Any], table: str, key: str) -> Any:
    """Return the value of ``key`` in the table of the (dotted) name, ``None`` if none."""
    for name in table.split("."):
        inner = settings.get(name)
        settings = inner if isinstance(inner, dict) else {}
    return settings.get(key)


def change(text: str, table: str, key: str, value: str | list[str], path: str) -> str:
    """Return ``text`` with ``key`` of ``table`` set to ``value``; as it is if it was so.

    Raises ``Error`` where the setting cannot be changed without changing another one.
    """
    settings = parse(text, path)
    if get(settings, table, key) == value:
        return text
    changed = _with_line(text, table, key, f"{key} = {json.dumps(value)}")
    inner: Any = settings
    for name in table.split("."):
        inner = inner.setdefault(name, {}) if isinstance(inner, dict) else None
    try:
        # What is there instead of a table is left as it is.
        if isinstance(inner, dict):
            inner[key] = value
            if parse(changed, path) == settings:
                return changed
    except NoTomlError:
        pass
    raise Error(
        f"{path} is written in a way that cannot be changed safely: set {key} to "
        f"{json.dumps(value)} in its table [{table}] yourself"
    )


def undo(text: str) -> str:
    """Return ``text`` as it is without the changes of ``change``."""
    lines: list[str] = []
    headers = []
    for line in text.splitlines(keepends=True):
        content, mark, rest = line.rstrip("\n").partition(_MARK)
        if not mark:
            lines.append(line)
        elif rest.startswith(_INSTEAD):
            lines.append(json.loads(rest.removeprefix(_INSTEAD)))
        elif content.startswith("["):
            headers.append(len(lines))
            lines.append(content + "\n")
    for index in reversed(headers):
        # Unless somebody has put something under the header meanwhile.
        following = index + 1
        while following < len(lines) and not lines[following].strip():
            following += 1
        if following == len(lines) or lines[following].lstrip().startswith("["):
            del lines[index:following]
    return "".join(lines)


def _with_line(text: str, table: str, key: str, setting: str) -> str:
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    header = re.compile(r"\s*\[\s*" + r"\s*\.\s*".join(table.split(".")) + r"\s*\]\s*(#.*)?\s*$")
    start = next((n for n, line in enumerate(lines) if header.match(line)), None)
    if start is None:
        return "".join([*lines, f"[{table}]{_MARK}\n", f"{setting}{_MARK}\n"])
    assignment = re.compile(rf"\s*{re.escape(key)}\s*=")
    for number in range(start + 1, len(lines)):
        if lines[number].lstrip().startswith("["):
            break
        if assignment.match(lines[number]):
            end = _end_of_value(lines, number)
            old = json.dumps("".join(lines[number:end]))
            lines[number:end] = [f"{setting}{_MARK}{_INSTEAD}{old}\n"]
            return "".join(lines)
    lines.insert(start + 1, f"{setting}{_MARK}\n")
    return "".join(lines)


def _end_of_value(lines: list[str], start: int) -> int:
    """Return the number of the line after an assignment, which may take several lines."""
    for end in range(start + 1, len(lines) + 1):
        try:
            parse("".join(lines[start:end]), "")
        except NoTomlError:
            continue
        return end
    return start + 1
