"""Reading and writing JSON without importing ``json``.

``import json`` pulls in ``re``, ``enum`` and ``functools`` and costs about five
milliseconds, as much as the start of the interpreter itself.  All that this
package needs of it is the scanner and the encoder of its C half, ``_json``, so
these are called here directly.  ``_json`` is private to CPython: whenever it is
missing or different, and whenever a text does not parse, the real module takes
over, which also knows the line and the column of the error.
"""

from __future__ import annotations

import os

from runrootless.errors import Error, named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WHITESPACE = " \t\n\r"
_FAILURES = (
    # No C half, or another one.
    ImportError,
    AttributeError,
    TypeError,
    # No JSON. SystemError is what becomes of JSONDecodeError, a ValueError, as long as
    # its module has not been imported.
    ValueError,
    StopIteration,
    SystemError,
    RecursionError,
)


class _ScannerContext:
    """The attributes that ``_json.make_scanner`` reads from ``json.JSONDecoder``."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_int = int

    @staticmethod
    def parse_float(text: str) -> float:
        # Some have no end in it (1e999), and could not be written.
        value = float(text)
        if value - value != 0:
            raise ValueError(text)
        return value

    @staticmethod
    def parse_constant(name: str) -> float:
        # JSON has no NaN and no Infinity; Go, which reads what we write, refuses them.
        raise ValueError(name)


def parse(text: str, name: str) -> Any:
    """Return the value of the JSON document ``text``.

    ``name`` says in an error where the text is from.  Raises ``Error`` with line
    and column if the text is not one JSON document (RFC 8259).
    """
    try:
        return scan(text)
    except (ImportError, AttributeError, TypeError, ValueError):
        return _parse_slowly(text, name)


def scan(text: str) -> Any:
    """Return the value of the JSON document ``text``, without importing anything large.

    Raises ValueError if it is not one, and ImportError, AttributeError or TypeError
    where CPython has changed.
    """
    from _json import make_scanner

    # The scanner wants to start on the first character of a value.
    start = len(text) - len(text.lstrip(_WHITESPACE))
    try:
        value, end = make_scanner(_ScannerContext)(text, start)  # type: ignore[arg-type]
    except (StopIteration, RecursionError, SystemError):
        # SystemError: it looks for the exception to raise in json.decoder, which is not there.
        raise ValueError("not a JSON document") from None
    if text[end:].strip(_WHITESPACE):
        raise ValueError("more than a JSON document")
    if "\\ud" in text or "\\uD" in text:
        _check_characters(value)
    return value


def _check_characters(value: Any) -> None:
    """Raise ValueError if a string in ``value`` has half a character (a lone surrogate)."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                half = value[error.start]
                raise ValueError(f"\\u{ord(half):04x}") from None


def _check_names(value: Any) -> None:
    """Raise Error if a string in ``value`` has bytes of a path (os.fsdecode) that are not UTF-8."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Error(
                    f"{value} is not UTF-8, and in config.json, which runtimes read, "
                    "there can be nothing else: rename it"
                ) from None


def _parse_slowly(text: str, name: str) -> Any:
    import json

    try:
        value = json.loads(
            text,
            parse_constant=_ScannerContext.parse_constant,
            parse_float=_ScannerContext.parse_float,
        )
        _check_characters(value)
        return value
    except json.JSONDecodeError as error:
        raise Error(
            f"{name} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except ValueError as error:
        if str(error).startswith("Exceeds the limit"):
            raise Error(f"{name} is not valid JSON: a number in it is too long") from None
        raise Error(f"{name} is not valid JSON: {error} is not a JSON value") from None
    except RecursionError:
        raise Error(f"{name} is not valid JSON: it is nested too deeply") from None


def dump(value: Any) -> str:
    """Return ``value`` as a JSON text in ASCII, on one line."""
    try:
        import _json

        make_encoder: Any = _json.make_encoder
        quote = _json.encode_basestring_ascii
        encode = make_encoder(None, _refuse, quote, None, ":", ",", False, False, False)
        return "".join(encode(value, 0))
    except (ImportError, AttributeError, TypeError, RecursionError):
        import json

        return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not a JSON type")


def read(path: str) -> Any:
    """Return the value in the JSON file ``path``.

    Bytes that are not UTF-8 become U+FFFD, as in the runtimes that read the same
    file with Go's encoding/json.  Raises ``OSError`` as open(2) and read(2) do,
    and ``Error`` for a file that is not JSON.
    """
    # A fifo that nobody writes to is not waited for: it is empty.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.set_blocking(file, True)
        chunks = []
        while chunk := os.read(file, 1 << 20):
            chunks.append(chunk)
    finally:
        os.close(file)
    return parse(b"".join(chunks).decode("utf-8", "replace"), path)


def write(path: str, value: Any, mode: int = 0o600) -> None:
    """Write ``value`` as JSON to the new file ``path``.

    Raises ``OSError``: FileExistsError if the path exists, else as open(2) and
    write(2) do. Raises ``Error`` for a name that is not UTF-8, as JSON must be.
    """
    dumped = dump(value)
    if "\\ud" in dumped:
        _check_names(value)
    text = dumped.encode()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        write_all(file, text)
    except OSError as error:
        raise named(error, path) from None
    finally:
        os.close(file)


def write_all(file: int, data: bytes) -> None:
    """Write all of ``data`` to the file descriptor; raises ``OSError`` as write(2) does."""
    while data:
        data = data[os.write(file, data) :]
