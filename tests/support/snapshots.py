"""What all files of a tree are, seen from outside or from inside, and how two trees differ."""

import fnmatch
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from support.trees import XATTR


def decode_resource(value: bytes) -> tuple[int, int]:
    """Decode the protobuf message ``Resource{uint32 uid=1; uint32 gid=2}``."""
    fields = {1: 0, 2: 0}
    position = 0

    def varint() -> int:
        nonlocal position
        number = shift = 0
        while True:
            byte = value[position]
            position += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while position < len(value):
        key = varint()
        assert key & 7 == 0, f"not a varint field: {value.hex()}"
        fields[key >> 3] = varint()
    return fields[1], fields[2]


def recorded_owner(path: str) -> tuple[int, int]:
    """Return the owner that the attribute of a file of a rootless tree names."""
    try:
        return decode_resource(os.getxattr(path, XATTR, follow_symlinks=False))
    except OSError:
        return 0, 0


@dataclass(frozen=True)
class Entry:
    """What one file of a tree is."""

    kind: str
    uid: int
    gid: int
    mode: int
    device: str
    content: str

    def differences(self, other: "Entry") -> list[str]:
        """Describe how this entry, the oracle's, differs from another."""
        found = []
        if self.kind != other.kind:
            found.append(f"type {self.kind} here {other.kind}")
        if (self.uid, self.gid) != (other.uid, other.gid):
            found.append(f"owner {self.uid}:{self.gid} here {other.uid}:{other.gid}")
        if self.mode != other.mode:
            found.append(f"mode {self.mode:04o} here {other.mode:04o}")
        if self.device != other.device:
            found.append(f"device {self.device} here {other.device}")
        if self.content != other.content:
            found.append(f"content {self.content} here {other.content}")
        return found


Snapshot = dict[str, Entry]

KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
}

# What the runtime mounts over, in the one form of the tree and in the other.
MOUNTED = ("proc", "sys", "dev")


def _walk(root: str) -> Iterator[tuple[str, os.stat_result]]:
    yield ".", os.lstat(root)
    for directory, names, files in os.walk(root):
        relative = os.path.relpath(directory, root)
        if relative == ".":
            names[:] = [name for name in names if name not in MOUNTED]
        for name in names + files:
            path = os.path.normpath(os.path.join(relative, name))
            yield path, os.lstat(os.path.join(root, path))


def _content(path: str, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return "-> " + os.readlink(path)
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return ""


def snapshot(root: str, *, rootless: bool) -> Snapshot:
    """Describe each file of a tree, read from outside.

    Of a rootless tree the owners are those recorded in the attribute.
    """
    entries = {}
    for name, status in _walk(root):
        path = os.path.join(root, name)
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        device = ""
        if kind in "cb":
            device = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        owner = recorded_owner(path) if rootless else (status.st_uid, status.st_gid)
        mode = stat.S_IMODE(status.st_mode)
        entries[name] = Entry(kind, *owner, mode, device, _content(path, status))
    return entries


# Run inside a container or a chroot, it prints what a program there sees. No
# name of a file that Debian ships holds a line feed.
INSPECT = (
    "cd / && find . -xdev \\( -path ./proc -o -path ./sys -o -path ./dev \\) -prune -o"
    " -printf '%P\\t%y\\t%U\\t%G\\t%m\\n'"
    " && echo DEVICES && find . -xdev \\( -path ./proc -o -path ./sys -o -path ./dev \\) -prune"
    " -o \\( -type b -o -type c \\) -exec stat -c '%n\t%Hr:%Lr' {} +"
)


def inspected(output: str, root: str) -> Snapshot:
    """Read the output of INSPECT, and add the content of the files in ``root``."""
    listing, _, devices = output.partition("DEVICES\n")
    numbers = {}
    for line in devices.splitlines():
        name, _, number = line.partition("\t")
        numbers[os.path.normpath(name)] = number
    entries = {}
    for line in listing.splitlines():
        name, kind, uid, gid, mode = line.split("\t")
        name = name or "."
        path = os.path.join(root, name)
        device = numbers.get(name, "")
        content = "" if device else _content(path, os.lstat(path))
        entries[name] = Entry(kind, int(uid), int(gid), int(mode, 8), device, content)
    return entries


@dataclass(frozen=True)
class Excepted:
    """Files whose difference between the trees has a reason."""

    pattern: str
    reason: str
    only: str = ""  # "content": everything else must be the same


def compare(oracle: Snapshot, rootless: Snapshot, exceptions: Sequence[Excepted] = ()) -> list[str]:
    """Return a line for each difference between two trees that has no reason.

    The patterns of the exceptions are those of ``fnmatch``, on paths without a
    leading slash.
    """
    found = []
    for name in sorted(oracle.keys() | rootless.keys()):
        matching = [e for e in exceptions if fnmatch.fnmatchcase(name, e.pattern)]
        if any(not e.only for e in matching):
            continue
        ours, theirs = rootless.get(name), oracle.get(name)
        if ours is None or theirs is None:
            found.append(f"{name}: only {'in the oracle' if ours is None else 'here'}")
            continue
        for difference in theirs.differences(ours):
            if not any(difference.startswith(e.only) for e in matching):
                found.append(f"{name}: {difference}")
    return found
