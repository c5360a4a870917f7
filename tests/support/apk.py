"""Packages for Alpine's apk, made by hand: the format of apk-tools 2.

A package is three gzip members, whose contents are one tar in all: a signature (of nobody here,
which ``--allow-untrusted`` allows), what is known of the package, and its files.
"""

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A file of a package. apk goes by the names of the owner and the group."""

    content: bytes
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"


def make_apk(name: str, files: Mapping[str, File], post_install: str) -> bytes:
    """Return a package with these files, by their paths without the first slash.

    Each is in a directory right below the root directory.
    """
    data = _member(files, last=True)
    information = {
        "pkgname": name,
        "pkgver": "1.0-r0",
        "pkgdesc": name,
        "url": "http://localhost",
        "arch": "noarch",
        "size": str(sum(len(file.content) for file in files.values())),
        "license": "none",
        "origin": name,
        "datahash": hashlib.sha256(data).hexdigest(),
    }
    lines = "".join(f"{key} = {value}\n" for key, value in information.items())
    control = {
        ".PKGINFO": File(lines.encode()),
        ".post-install": File(post_install.encode(), 0o755),
    }
    signature = {".SIGN.RSA.nobody.rsa.pub": File(b"none")}
    return _member(signature) + _member(control) + data


def _member(files: Mapping[str, File], *, last: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for directory in sorted({os.path.dirname(path) for path in files} - {""}):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            entry.uname = entry.gname = "root"
            archive.addfile(entry)
        for path, file in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(file.content)
            entry.mode = file.mode
            entry.uname, entry.gname = file.owner, file.group
            if not path.startswith("."):
                checksum = hashlib.sha1(file.content).hexdigest()
                entry.pax_headers = {"APK-TOOLS.checksum.SHA1": checksum}
            archive.addfile(entry, io.BytesIO(file.content))
        end = archive.offset
    content = buffer.getvalue()
    # Only the last one has the end of the archive.
    return gzip.compress(content if last else content[:end])
