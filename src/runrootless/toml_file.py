"""Reading of TOML, for which Python has a module from 3.11 on, and before that tomli is one."""

from __future__ import annotations

import sys

from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class NoTomlError(Error):
    """What was read is no TOML."""


def parse(text: str, path: str) -> dict[str, Any]:
    """Return the settings in ``text``. Raises ``Error``, naming ``path``, if it is no TOML.

    Which is a ``NoTomlError`` if it was read, and another one where nothing can read it.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ModuleNotFoundError:
            raise Error(
                f"reading {path} takes Python 3.11, or tomli: {sys.executable} -m pip install tomli"
            ) from None
    try:
        settings: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NoTomlError(f"{path} is not valid TOML: {error}: correct or remove it") from None
    return settings
