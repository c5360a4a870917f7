"""Writing a configuration file of the user's: either all of it is there, or what was there."""

from __future__ import annotations

import os
import tempfile

from runrootless.errors import Error


def write(path: str, text: str) -> None:
    """Put ``text`` in place of the file; one in which nothing would be is removed.

    Raises Error.
    """
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
