"""Small C programs for the tests."""

import os
import subprocess
from collections.abc import Sequence


def compiler(flag: str) -> list[str]:
    """Return the command that compiles for ``-m64`` or ``-m32``, without its files.

    The kernel's headers are those of both, which the package gcc-multilib has a link to; but
    that can't be installed beside cross compilers.
    """
    return ["gcc", flag, "-idirafter", "/usr/include/x86_64-linux-gnu"]


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
