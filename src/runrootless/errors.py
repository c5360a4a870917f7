"""The error that a user sees as one line."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LENGTH = 2000


class Error(Exception):
    """What failed, on what, and what the user can do, in one line.

    ``exit_code`` is what the command exits with: 1 unless said otherwise, as
    runc's own errors do.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def one_line(error: BaseException) -> str:
    """Return what failed, on what, and what the user can do, of any exception."""
    if isinstance(error, Error):
        text = str(error)
    elif isinstance(error, OSError):
        what = error.strerror or str(error)
        text = f"{_text(error.filename)}: {what}" if error.filename is not None else what
        text += _remedy(error.errno)
    elif isinstance(error, MemoryError):
        text = "out of memory: raise the limit of it (ulimit -v), or free some"
    else:
        text = f"{type(error).__name__}: {error}: a fault of runrootless, --debug shows where"
    return shown(text)


def shown(text: str) -> str:
    """Return a text as it is shown in one line: that of others may be anything, of any length."""
    if not text.isprintable():
        text = "".join(one if one.isprintable() else _escaped(one) for one in text)
    if len(text) > _LENGTH:
        text = f"{text[: _LENGTH // 2]} … {text[-_LENGTH // 2 :]}"
    return text


def _escaped(character: str) -> str:
    """Return a character as strings have it, a byte of a name that is not UTF-8 as a byte."""
    number = ord(character)
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else ascii(character)[1:-1]


def _text(name: object) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _remedy(number: int | None) -> str:
    """Return what can be done about an error number: errno(3)."""
    import errno

    return {
        errno.ENOSPC: ": free some, or set XDG_RUNTIME_DIR to a directory with more",
        errno.EDQUOT: ": free some, or set XDG_RUNTIME_DIR to a directory with more",
        errno.EFBIG: ": raise the limit of file sizes (ulimit -f)",
        errno.EMFILE: ": raise the limit of open files (ulimit -n)",
        errno.EAGAIN: ": raise the limit of processes (ulimit -u)",
        errno.ENAMETOOLONG: ": take a shorter path",
    }.get(number or 0, "")


def suggestion(name: str, names: Iterable[str], before: str = "") -> str:
    """Return what asks whether one of ``names`` was meant, empty where none is like ``name``."""
    found = min(names, key=lambda one: _distance(name, one), default="")
    allowed = max(1, len(name) // 3)
    like = _distance(name, found) <= allowed < len(name)
    return f": did you mean {before}{found}?" if like else ""


def _distance(one: str, other: str) -> int:
    """Return how many mistakes lie between two words: a letter too many, missing, another, or
    two that have changed places."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        further, before, row = before, row, [i + 1]
        for j, meant in enumerate(other):
            row.append(min(before[j] + (letter != meant), before[j + 1] + 1, row[j] + 1))
            if i and j and letter == other[j - 1] and one[i - 1] == meant:
                row[-1] = min(row[-1], further[j - 1] + 1)
    return row[-1]


def suggested_path(path: str) -> str:
    """Return what asks whether a path was meant that is like ``path``, in the same directory."""
    import os

    parent, name = os.path.split(path.rstrip("/"))
    try:
        return suggestion(name, os.listdir(parent or "."), parent and f"{parent}/")
    except OSError:
        return ""


def named(error: OSError, path: str) -> OSError:
    """Return an error of a system call on a descriptor as one that names the file."""
    if error.filename is None:
        error.filename = path
    return error
