"""A PRoot program: what it is linked with, and the words that execute it anywhere.

A dynamic program needs its dynamic loader and its libraries, which another root file
system has not got, or has of another C library.  Executed as ``loader --library-path
DIRECTORY program``, with its own loader, it takes them from that directory and needs
nothing else: ld.so(8).  musl's loader takes the same words.
"""

from __future__ import annotations

import os
import subprocess
from struct import Struct, error

from runrootless.errors import Error

# elf(5): of Elf64_Ehdr e_machine, e_phoff, e_phentsize and e_phnum; of Elf64_Phdr p_type,
# p_offset and p_filesz; then the same of the 32-bit structures.
_HEADERS = {
    2: (Struct("<18xH12xQ14xHH"), Struct("<I4xQ16xQ")),
    1: (Struct("<18xH8xI10xHH"), Struct("<II8xI")),
}
_MAGIC = b"\x7fELF"
_PT_INTERP = 3
_MACHINES = {62: "x86_64", 183: "aarch64", 40: "arm", 3: "i386"}
_LISTING_SECONDS = 20


class Program:
    """A PRoot program: its ``path``, ``loader`` (empty if it is static) and ``libraries``.

    ``libraries`` maps the name that the loader looks for to the path of the file.
    """

    __slots__ = ("libraries", "loader", "path")

    def __init__(
        self, path: str, loader: str = "", libraries: dict[str, str] | None = None
    ) -> None:
        self.path = path
        self.loader = loader
        self.libraries = libraries or {}


def examine(path: str) -> Program:
    """Return the program in the file ``path``.

    Raises ``Error`` if it cannot be read, is no program of this machine's architecture,
    or lacks a library.
    """
    loader, machine = _header(path)
    # An unknown one is left to execve(2).
    if _MACHINES.get(machine, os.uname().machine) not in _native():
        raise Error(f"{path} is a program for {_MACHINES[machine]}: this is {os.uname().machine}")
    libraries = _libraries(path, loader) if loader else {}
    return Program(path, loader, libraries)


def is_static(path: str) -> bool:
    """Return whether ``path`` is an ELF program that needs no loader."""
    try:
        return not _header(path)[0]
    except Error:
        return False


def _native() -> tuple[str, ...]:
    machine = os.uname().machine
    return {"x86_64": ("x86_64", "i386"), "armv7l": ("arm",), "i686": ("i386",)}.get(
        machine, (machine,)
    )


def _header(path: str) -> tuple[str, int]:
    """Return the path of the program's loader, empty if it is static, and its e_machine."""
    try:
        with open(path, "rb") as file:
            start = file.read(64)
            if start[:4] != _MAGIC or start[4] not in _HEADERS or start[5] != 1:
                raise Error(f"{path} is no ELF program for this machine: correct RUNROOTLESS_PROOT")
            header, entry = _HEADERS[start[4]]
            machine, offset, size, count = header.unpack_from(start)
            file.seek(offset)
            table = file.read(size * count)
            for index in range(count):
                kind, where, length = entry.unpack_from(table, size * index)
                if kind == _PT_INTERP:
                    file.seek(where)
                    return os.fsdecode(file.read(length).rstrip(b"\0")), machine
            return "", machine
    except OSError as failure:
        raise Error(f"cannot read PRoot at {path}: {failure.strerror}") from None
    except (error, IndexError):
        raise Error(f"{path} is cut off: install PRoot anew") from None


def _libraries(path: str, loader: str) -> dict[str, str]:
    try:
        done = subprocess.run(
            [loader, "--list", path],
            capture_output=True,
            text=True,
            timeout=_LISTING_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise Error(f"cannot list the libraries of {path} with {loader}: {failure}") from None
    libraries = {}
    for line in done.stdout.splitlines():
        # "libc.so.6 => /lib/libc.so.6 (0x...)"; the loader itself and the vDSO have no arrow
        # or no file.
        name, arrow, rest = line.strip().partition(" => ")
        target = rest.partition(" (0x")[0].strip()
        if arrow and target == "not found":
            raise Error(f"{path} needs the library {name}, which is not installed")
        if arrow and target.startswith("/"):
            libraries[os.path.basename(name)] = target
    if done.returncode != 0:
        raise Error(f"{loader} cannot load {path}: {done.stderr.strip() or done.returncode}")
    return libraries
