"""Packages for Alpine's apk, made by hand: the format of apk-tools 2.

A package is three gzip members, whose contents are one tar in all: a signature (of nobody here,
which ``--allow-untrusted`` allows), what is known of the package, and its files.
"""

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Mapping
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


def entry(
    name: str,
    owner: str,
    group: str,
    mode: int,
    kind: bytes = tarfile.REGTYPE,
    *,
    link: str = "",
    device: tuple[int, int] = (0, 0),
    attributes: Mapping[str, bytes] | None = None,
) -> tarfile.TarInfo:
    """Return the header of a file of any kind. apk goes by the names of the owner and the group."""
    info = tarfile.TarInfo(name)
    info.uname, info.gname, info.mode, info.type, info.linkname = owner, group, mode, kind, link
    info.devmajor, info.devminor = device
    info.pax_headers = {
        f"SCHILY.xattr.{attribute}": value.decode("utf-8", "surrogateescape")
        for attribute, value in (attributes or {}).items()
    }
    return info


def make_package(
    name: str,
    version: str,
    entries: Iterable[tuple[tarfile.TarInfo, bytes]],
    scripts: Mapping[str, str],
) -> bytes:
    """Return a package with these files and their contents, and scripts by their names."""
    data = _packed(entries, last=True)
    information = {
        "pkgname": name,
        "pkgver": version,
        "pkgdesc": name,
        "url": "http://localhost",
        "arch": "noarch",
        "size": "4096",
        "license": "none",
        "origin": name,
        "datahash": hashlib.sha256(data).hexdigest(),
    }
    lines = "".join(f"{key} = {value}\n" for key, value in information.items())
    control = [(entry(".PKGINFO", "root", "root", 0o644), lines.encode())]
    for script, text in scripts.items():
        control.append((entry(f".{script}", "root", "root", 0o755), text.encode()))
    signature = [(entry(".SIGN.RSA.nobody.rsa.pub", "root", "root", 0o644), b"none")]
    return _packed(signature) + _packed(control) + data


def _packed(entries: Iterable[tuple[tarfile.TarInfo, bytes]], *, last: bool = False) -> bytes:
    buffer = io.BytesIO()
    # Attributes are bytes.
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
    ) as archive:
        for info, content in entries:
            info.size = len(content)
            hashed = content or info.linkname.encode()
            if hashed and not info.name.startswith("."):
                digest = hashlib.sha1(hashed).hexdigest()
                info.pax_headers = {**info.pax_headers, "APK-TOOLS.checksum.SHA1": digest}
            archive.addfile(info, io.BytesIO(content))
        end = archive.offset
    content = buffer.getvalue()
    # Only the last one has the end of the archive.
    return gzip.compress(content if last else content[:end], mtime=0)
