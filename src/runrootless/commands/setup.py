"""``setup``: writes the configuration that another program needs to use this one."""

from __future__ import annotations

import difflib
import os
import sys

from runrootless.command_line import own
from runrootless.command_line.runc import SETUP
from runrootless.errors import Error, suggestion
from runrootless.integrations import podman, toml_text, user_files
from runrootless.toml_file import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.command_line.runc import Parsed


def run(options: Parsed) -> int:
    """Change the files that the command line asks for, and print what was changed.

    Returns the exit code. Raises ``Error`` and ``OSError``; then no file is changed, or
    the error was in writing one.
    """
    parsed = own.parse("setup", SETUP, options.arguments[1:], "podman", 1)
    if parsed is None:
        return 0
    if parsed.arguments != ["podman"]:
        raise Error(
            f"setup takes podman, which stands for buildah as well, not {parsed.arguments[0]}"
            f"{suggestion(parsed.arguments[0], ('podman',))}"
        )
    is_undone = parsed.is_on("undo")

    changes = {}
    texts = {}
    for path, make in podman.files(os.path.abspath(sys.argv[0])).items():
        text = _read(path)
        parse(text, path)
        new = toml_text.undo(text) if is_undone else make(text)
        if new != text and not is_undone:
            # Not on top of what an earlier version has written.
            new = make(toml_text.undo(text))
        texts[os.path.basename(path)] = new
        if new != text:
            changes[path] = text, new
    for path, (old, new) in changes.items():
        sys.stdout.writelines(_difference(path, old, new))
    if not changes:
        print("nothing to change")
    elif not parsed.is_on("dry-run"):
        for path, (_, new) in changes.items():
            user_files.write(path, new)
    if not is_undone:
        for note in podman.notes(texts["storage.conf"]):
            print(f"note: {note}")
    return 0


def _difference(path: str, old: str, new: str) -> list[str]:
    return list(
        difflib.unified_diff(
            old.splitlines(keepends=True),
            new.splitlines(keepends=True),
            path if old else "/dev/null",
            path if new.strip() else "/dev/null",
        )
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise Error(f"cannot read {path}: {error}") from None
