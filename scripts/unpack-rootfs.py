#!/usr/bin/python3
"""Unpack a root file system's tar as an ordinary user, keeping who owns what.

    unpack-rootfs.py ROOTFS.tar[.gz|.xz] DIRECTORY
    unpack-rootfs.py - DIRECTORY <ROOTFS.tar

Every file belongs to the caller then. An owner other than root is recorded in
the extended attribute ``user.rootlesscontainers``, as ``umoci unpack
--rootless`` does it. Device nodes are left out: no user may make them, and an
OCI runtime brings its own /dev.
"""

import os
import sys
import tarfile

XATTR = "user.rootlesscontainers"


def varint(number: int) -> bytes:
    """Encode a number as protobuf does: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def resource(uid: int, gid: int) -> bytes:
    """Encode an owner as the protobuf message ``Resource{uint32 uid=1; uint32 gid=2}``."""
    encoded = b""
    # Protobuf leaves out what is zero.
    if uid:
        encoded += b"\x08" + varint(uid)
    if gid:
        encoded += b"\x10" + varint(gid)
    return encoded


def unpack(archive: str, directory: str) -> None:
    """Unpack the archive, or with ``-`` standard input, into a directory that need not exist."""
    os.umask(0o022)
    os.makedirs(directory, exist_ok=True)
    directories = []
    with (
        open(0 if archive == "-" else archive, "rb") as source,
        tarfile.open(fileobj=source, mode="r|*") as tar,
    ):
        for member in tar:
            path = os.path.normpath(os.path.join(directory, member.name))
            inside = os.path.commonpath([directory, path]) == directory
            # A symlink on the way could lead out of the directory.
            parent = os.path.realpath(os.path.dirname(path))
            if path != directory and (
                not inside or os.path.commonpath([directory, parent]) != directory
            ):
                raise SystemExit(f"{archive}: {member.name} leads out of the directory")
            if member.isdir():
                os.makedirs(path, exist_ok=True)
                directories.append((path, member))
            elif member.isreg():
                content = tar.extractfile(member)
                assert content is not None
                with open(path, "xb") as target:
                    while block := content.read(1 << 20):
                        target.write(block)
            elif member.issym():
                os.symlink(member.linkname, path)
            elif member.islnk():
                os.link(os.path.join(directory, member.linkname), path, follow_symlinks=False)
                continue
            elif member.isfifo():
                os.mkfifo(path)
            else:
                continue
            owner = resource(member.uid, member.gid)
            if owner and (member.isdir() or member.isreg()):
                os.setxattr(path, XATTR, owner)
            elif owner:
                print(f"{member.name}: the owner of this kind of file is lost", file=sys.stderr)
            if not member.isdir() and not member.issym():
                os.chmod(path, member.mode)
            if not member.isdir():
                os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
    # Last and from below: making files in them changes their times, and a mode
    # may forbid it.
    for path, member in reversed(directories):
        os.chmod(path, member.mode)
        os.utime(path, (member.mtime, member.mtime))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    unpack(sys.argv[1], os.path.realpath(sys.argv[2]))
