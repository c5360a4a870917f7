"""Versions of Python other than the tests' own: copies for every user, with the package."""

import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import runrootless
from support.containers import COMMAND
from support.trees import Trees

VERSIONS = tuple((3, minor) for minor in range(9, 15))
"""Those that are supported: requires-python, and what is out."""

OWN = sys.version_info[:2]

# Where they are looked for: on the caller's PATH, and where version managers keep them.
PLACES = ("~/.pyenv/versions/*/bin", "~/.local/share/uv/python/*/bin", "/opt/python/*/bin")
# Of the library what the package does not import.
UNUSED = (
    *("__pycache__", "config-*", "ensurepip", "idlelib", "lib2to3", "pydoc_data"),
    *("site-packages", "dist-packages", "test", "tests", "tkinter", "turtledemo"),
)

_QUESTIONS = "import os, sys, sysconfig; v = sysconfig.get_config_var; print(*sys.version_info[:2])"
_QUESTIONS += "; print(os.path.realpath(sys.executable), sysconfig.get_path('stdlib'), sep='\\n')"
_QUESTIONS += "; print(v('LIBDIR'), v('INSTSONAME') if v('Py_ENABLE_SHARED') else '', sep='\\n')"


@dataclass(frozen=True)
class Python:
    """An interpreter that was found: its version, its file, its library, and what it links to."""

    version: tuple[int, int]
    program: str
    library: str
    shared: str

    @property
    def name(self) -> str:
        """The version as it is written."""
        return f"{self.version[0]}.{self.version[1]}"


def name_of(version: tuple[int, int]) -> str:
    """Return the version as it is written."""
    return f"{version[0]}.{version[1]}"


def find(version: tuple[int, int]) -> Python | None:
    """Return an interpreter of a version, where there is one that can be executed."""
    name = f"python{name_of(version)}"
    found = []
    for place in PLACES:
        found += sorted(glob.glob(f"{os.path.expanduser(place)}/{name}"))
    # Of version managers these are scripts, which may stand for nothing.
    found += [path for path in [shutil.which(name)] if path]
    for path in found:
        done = subprocess.run([path, "-I", "-c", _QUESTIONS], capture_output=True, text=True)
        if done.returncode == 0:
            numbers, program, library, directory, shared = done.stdout.split("\n")[:5]
            if numbers == f"{version[0]} {version[1]}":
                return Python(
                    version, program, library, os.path.join(directory, shared) if shared else ""
                )
    return None


@dataclass(frozen=True)
class Installed:
    """A copy of an interpreter: its version, what begins its command lines, and runrootless."""

    version: tuple[int, int]
    interpreter: Sequence[str]
    command: str


def install(python: Python, directory: str, trees: Trees) -> Installed:
    """Copy an interpreter and the package into a new directory.

    The package is the user's, so that what is compiled of it is kept.
    """
    library = f"{directory}/lib/python{python.name}"
    shutil.copytree(python.library, library, symlinks=True, ignore=shutil.ignore_patterns(*UNUSED))
    os.makedirs(f"{directory}/bin")
    interpreter = f"{directory}/bin/python{python.name}"
    shutil.copy(python.program, interpreter)
    if python.shared:
        shutil.copy(python.shared, f"{directory}/lib")
    packages = f"{library}/site-packages"
    os.mkdir(packages)
    source = os.path.dirname(runrootless.__file__)
    copied = f"{packages}/runrootless"
    shutil.copytree(source, copied, ignore=shutil.ignore_patterns("__pycache__"))
    trees.user.give(copied)
    for place, names, _ in os.walk(copied):
        for name in names:
            trees.user.give(os.path.join(place, name))
    words = [interpreter]
    if python.shared:
        # Its library is looked for where it was installed.
        words = ["/usr/bin/env", f"LD_LIBRARY_PATH={directory}/lib", interpreter]
    command = f"{directory}/bin/runrootless"
    shutil.copy(COMMAND, command)
    with open(f"{COMMAND}-python") as file:
        _, _, script = file.read().partition("\n")
    with open(f"{command}-python", "w") as file:
        file.write(f"#!{' '.join(words).replace('env ', 'env -S ')}\n{script}")
    os.chmod(f"{command}-python", 0o755)
    return Installed(python.version, words, command)
