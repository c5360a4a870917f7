"""Images in local archives, as ``podman load`` and ``ctr images import`` read them."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

# Debian's busybox-static, of which a file system of one program can be made.
BUSYBOX = "/bin/busybox"
ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


@dataclass(frozen=True)
class File:
    """A file of a layer: a directory if its name ends in a slash, else one with its name in it."""

    name: str
    uid: int = 0
    gid: int = 0
    mode: int = 0o644


def busybox_layer(path: str, files: Sequence[File]) -> str:
    """Write the tar of a layer with a shell, some tools, and the given files."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for directory in ("bin", "etc", "root", "tmp"):
            _add(tar, File(f"{directory}/", mode=0o1777 if directory == "tmp" else 0o755))
        tar.add(BUSYBOX, "bin/busybox", filter=_of_root)
        for applet in ("sh", "stat", "id", "chown", "cat", "touch", "ls", "sleep", "ip"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        users = b"root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n"
        for name, content in (("passwd", users), ("group", b"root:x:0:\nwww-data:x:33:\n")):
            _add(tar, File(f"etc/{name}"), content)
        for file in files:
            _add(tar, file)
    return path


def layer(path: str, files: Sequence[File]) -> str:
    """Write the tar of a layer that is to lie upon another one."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            _add(tar, file)
    return path


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member


def _add(tar: tarfile.TarFile, file: File, content: bytes | None = None) -> None:
    member = tarfile.TarInfo(file.name.rstrip("/"))
    member.uid, member.gid, member.mode = file.uid, file.gid, file.mode
    if file.name.endswith("/"):
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
        return
    data = file.name.encode() if content is None else content
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def docker_archive(path: str, tag: str, layers: Sequence[str]) -> str:
    """Write an image of some layers' tars, the lowest first, as ``docker save`` does."""
    digests = [_sha256(layer) for layer in layers]
    config = json.dumps(
        {
            "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
            "os": "linux",
            "config": {"Env": ENVIRONMENT, "Cmd": ["/bin/sh"]},
            # buildah wants one entry for each layer.
            "history": [{"created_by": "the tests"} for _ in layers],
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [f"{digest}.tar" for digest in digests]
    manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": names}]
    with tarfile.open(path, "w") as tar:
        for name, content in (
            (config_name, config),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            _add(tar, File(name), content)
        for name, source in zip(names, layers, strict=True):
            tar.add(source, name, filter=_of_root)
    return path


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(_binary(file), "sha256").hexdigest()


def _binary(file: IO[bytes]) -> io.BufferedReader:
    assert isinstance(file, io.BufferedReader)
    return file


def owners(path: str) -> dict[str, tuple[int, int]]:
    """Return the owner that a layer's tar names for each of its regular files and directories."""
    with tarfile.open(path) as tar:
        return {
            os.path.normpath(member.name): (member.uid, member.gid)
            for member in tar
            if member.isdir() or member.isreg()
        }
