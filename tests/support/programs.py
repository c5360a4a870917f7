"""Small C programs for the tests."""

import os
import subprocess
from collections.abc import Sequence


def compile_program(source: str, path: str, options: Sequence[str] = ()) -> str:
    """Compile a C program into the file ``path``, which everybody may execute."""
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-Werror", *options, "-x", "c", "-", "-o", path],
        input=source,
        text=True,
        check=True,
    )
    os.chmod(path, 0o755)
    return path
