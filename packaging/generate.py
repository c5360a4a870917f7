"""Writes man pages and completions of shells: see meson.build.

    python3 -B packaging/generate.py DIRECTORY NAME ...

writes the named files into a directory. All is made of ``runrootless.command_line.manual``, of
which ``--help`` is made too. The date of the pages is that of the newest version in the changelog.
"""

from __future__ import annotations

import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../src")]

import completions  # noqa: E402
import man_pages  # noqa: E402

from runrootless import __version__  # noqa: E402


def files() -> dict[str, str]:
    """Return the text of each file by its name. Raises OSError, ValueError."""
    pages = man_pages.pages(__version__, _date())
    return {
        **pages,
        "runrootless.bash": completions.bash(),
        "_runrootless": completions.zsh(),
        "runrootless.fish": completions.fish(),
    }


def _date() -> str:
    with open(os.path.join(HERE, "../CHANGELOG.md"), encoding="utf-8") as file:
        found = re.search(r"^## \[[0-9.]+\] - (\d{4}-\d\d-\d\d)$", file.read(), re.MULTILINE)
    if found is None:
        raise ValueError("CHANGELOG.md has no version with a date")
    return found[1]


def main(directory: str, *names: str) -> None:
    """Write the files. Raises OSError, and KeyError for a name that no file has."""
    made = files()
    if set(names) != made.keys():
        raise KeyError(f"meson.build and what is made differ: {set(names) ^ made.keys()}")
    for name in names:
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(made[name])


if __name__ == "__main__":
    main(*sys.argv[1:])
