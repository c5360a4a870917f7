"""Prints what stat(2), listxattr(2) and read(2) say of all files in a tree, a JSON line for each.

Executed by whatever Python there is, in a container and as real root, and imported by nobody.
"""

import hashlib
import json
import os
import stat
import sys


def describe(path: str) -> dict[str, object]:
    s = os.lstat(path)
    about: dict[str, object] = {
        "mode": oct(s.st_mode),
        "owner": f"{s.st_uid}:{s.st_gid}",
        "mtime": s.st_mtime_ns,
        "links": s.st_nlink if not stat.S_ISDIR(s.st_mode) else 0,
    }
    if stat.S_ISLNK(s.st_mode):
        about["target"] = os.readlink(path)
    if stat.S_ISREG(s.st_mode):
        with open(path, "rb") as file:
            content = file.read()
        about["content"] = f"{s.st_size} {hashlib.sha256(content).hexdigest()[:16]}"
    if stat.S_ISCHR(s.st_mode) or stat.S_ISBLK(s.st_mode):
        about["device"] = f"{os.major(s.st_rdev)}:{os.minor(s.st_rdev)}"
    attributes = {}
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        attributes[name] = os.getxattr(path, name, follow_symlinks=False).hex()
    if attributes:
        about["xattrs"] = attributes
    return about


def walk(top: str) -> None:
    inodes: dict[tuple[int, int], str] = {}
    pending = [top]
    while pending:
        path = pending.pop()
        about = describe(path)
        s = os.lstat(path)
        name = os.path.relpath(path, top)
        if s.st_nlink > 1 and not stat.S_ISDIR(s.st_mode):
            about["same"] = inodes.setdefault((s.st_dev, s.st_ino), name)
        print(json.dumps({"name": name.encode("utf-8", "surrogateescape").hex(), **about}))
        if stat.S_ISDIR(s.st_mode):
            pending += sorted(os.path.join(path, one) for one in os.listdir(path))[::-1]


walk(sys.argv[1])
