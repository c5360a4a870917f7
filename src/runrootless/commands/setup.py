"""``setup``: writes the configuration that another program needs to use this one."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile

from runrootless.command_line.own import Parser
from runrootless.errors import Error
from runrootless.integrations import podman, toml_text
from runrootless.toml_file import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.command_line.runc import Parsed


def run(options: Parsed) -> int:
    """Change the files that the command line asks for, and print what was changed.

    Returns the exit code. Raises ``Error`` and ``OSError``; then no file is changed, or
    the error was in writing one.
    """
    parser = Parser(
        prog="runrootless setup",
        description="Write what a program needs to use runrootless into its configuration: the "
        "user's own, and there nothing but these settings. What is changed is shown.",
    )
    parser.add_argument("program", choices=["podman"], help="podman stands for buildah as well")
    parser.add_argument("--undo", action="store_true", help="take the settings out again")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be changed")
    chosen = parser.parse_args(options.arguments[1:])

    changes = {}
    texts = {}
    for path, make in podman.files(os.path.abspath(sys.argv[0])).items():
        text = _read(path)
        parse(text, path)
        new = toml_text.undo(text) if chosen.undo else make(text)
        if new != text and not chosen.undo:
            # Not on top of what an earlier version has written.
            new = make(toml_text.undo(text))
        texts[os.path.basename(path)] = new
        if new != text:
            changes[path] = text, new
    for path, (old, new) in changes.items():
        sys.stdout.writelines(_difference(path, old, new))
    if not changes:
        print("nothing to change")
    elif not chosen.dry_run:
        for path, (_, new) in changes.items():
            _write(path, new)
    if not chosen.undo:
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


def _write(path: str, text: str) -> None:
    """Put ``text`` in place of the file; one in which nothing would be is removed."""
    # The file itself where it is kept elsewhere and linked to.
    path = os.path.realpath(path)
    try:
        if not text.strip():
            os.unlink(path)
            return
        directory = os.path.dirname(path)
        os.makedirs(directory, 0o700, exist_ok=True)
        mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o644
        with tempfile.NamedTemporaryFile(
            "w", dir=directory, prefix=f".{os.path.basename(path)}.", delete=False, encoding="utf-8"
        ) as file:
            try:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
                os.rename(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise Error(f"cannot write {path}: {error.strerror}") from None
