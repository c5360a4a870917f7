"""Writes the seccomp filters of the engines, which are the same at each start: see meson.build.

    python3 -B native/filters.py aarch64 DIRECTORY

writes those for a machine, NAME.bpf in the directory, from the table in src. A file is an
array of ``struct sock_filter``, <linux/filter.h>.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../src"))

from runrootless.emulation.fast_state import PLACEHOLDER
from runrootless.emulation.seccomp_filter import build
from runrootless.engines import zero
from runrootless.linux.seccomp import RETURN_NOTIFY


def filters(machine: str) -> dict[str, bytes]:
    """Return the BPF instructions of each filter, by its name.

    ``machine`` is what uname(2) says there. Raises KeyError if its calls are not known.
    """
    return {
        "notify": build(machine, RETURN_NOTIFY),
        "fast": build(machine, RETURN_NOTIFY, number=PLACEHOLDER),
        "thorough": build(machine, RETURN_NOTIFY, thorough=True),
        "zero": zero.filter_program(machine),
    }


def main(machine: str, directory: str) -> None:
    """Write the filters for a machine. Raises KeyError and OSError."""
    for name, program in filters(machine).items():
        with open(os.path.join(directory, f"{name}.bpf"), "wb") as file:
            file.write(program)


if __name__ == "__main__":
    main(*sys.argv[1:])
