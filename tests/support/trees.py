"""Root file systems: made once per machine, unpacked once per run, copied per test.

Each tree exists in two forms. The oracle's belongs to whom it should, for a
chroot of the real root. The rootless one is the same for a user without
privileges: all of it is the user's own, and other owners than root are
recorded in the attribute ``user.rootlesscontainers``.
"""

import fcntl
import fnmatch
import glob
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from support.containers import COMMAND
from support.users import AS_ROOT, Unprivileged

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UNPACK = os.path.join(CHECKOUT, "scripts", "unpack-rootfs.py")
XATTR = "user.rootlesscontainers"

# What the apt tests install, and so what is downloaded beforehand for both trees.
SERVERS = ("nginx-light", "postgresql-common", "openssh-server", "dbus", "git")
DATABASE = ("postgresql-15", "postgresql-client-15")
# What the engines' tests install.
MESSAGE_BUS = "dbus"

# Options of mmdebstrap for each tree of Debian.
RECIPES: dict[str, list[str]] = {
    "debian": [],
    "tools": [
        "--include=acl,attr,dbus,debootstrap,libcap2-bin,mmdebstrap,procps,python3,rsync,sudo",
    ],
    "shells": ["--include=ksh93u+m,mksh,procps,zsh"],
    "servers": [
        "--skip=cleanup/apt",
        # mmdebstrap has told apt to leave out recommended packages.
        '--customize-hook=chroot "$1" apt-get install --download-only --yes'
        f" --install-recommends {' '.join(SERVERS)}",
        '--customize-hook=chroot "$1" apt-get install --download-only --yes'
        f" --no-install-recommends {' '.join(DATABASE)}",
        # Downloaded by apt outside the tree, and no part of the installation.
        '--customize-hook=rm -f "$1"/var/cache/apt/*.bin',
    ],
    "jobs": [
        "--include=rpm",
        # There is a copy for each engine.
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/zoneinfo/*",
        '--customize-hook=chroot "$1" apt-get clean',
        '--customize-hook=chroot "$1" apt-get install --download-only --yes'
        f" --no-install-recommends {MESSAGE_BUS}",
        '--customize-hook=mkdir "$1"/packages',
        '--customize-hook=mv "$1"/var/cache/apt/archives/*.deb "$1"/packages',
    ],
}
SUITE = "bookworm"
MAX_AGE_DAYS = 30


def cache_directory() -> str:
    """Return where what is slow to make is kept from one run to the next."""
    if AS_ROOT:
        return "/var/cache/runrootless-tests"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "runrootless-tests")


def mirror() -> str:
    """Return the mirror of Debian that this machine's own apt uses."""
    script = f". {CHECKOUT}/scripts/lib.sh; debian_mirror"
    return subprocess.run(
        ["bash", "-c", script], check=True, capture_output=True, text=True
    ).stdout.strip()


def debian_archive(recipe: str) -> str:
    """Return the tar of a minimal Debian, made with mmdebstrap at the first call."""
    options = ["--mode=root", "--variant=minbase", *RECIPES[recipe], SUITE]
    key = hashlib.sha256(repr(options).encode()).hexdigest()[:8]
    directory = cache_directory()
    os.makedirs(directory, 0o755, exist_ok=True)
    archive = os.path.join(directory, f"{SUITE}-{recipe}-{key}.tar")
    # Runs at the same time wait for each other here.
    with open(archive + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Those of other recipes, of other versions of this file, age as well.
        for path in glob.glob(os.path.join(directory, "*.tar")):
            if time.time() - os.stat(path).st_mtime > MAX_AGE_DAYS * 86400:
                os.unlink(path)
        if os.path.exists(archive):
            return archive
        print(f"making {archive}", file=sys.stderr)
        unfinished = archive + ".new.tar"
        as_root = [] if AS_ROOT else [COMMAND, "emulate", "--"]
        command = [*as_root, "mmdebstrap", *options, unfinished, mirror()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        os.rename(unfinished, archive)
    return archive


def debootstrap_archive() -> str:
    """Return the packages of a minimal Debian as debootstrap packs them, made at the first call."""
    directory = cache_directory()
    os.makedirs(directory, 0o755, exist_ok=True)
    archive = os.path.join(directory, f"{SUITE}-debootstrap.tgz")
    with open(archive + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(archive) and time.time() - os.stat(archive).st_mtime < 86400:
            return archive
        unfinished = archive + ".new.tgz"
        command = ["debootstrap", "--variant=minbase", f"--make-tarball={unfinished}", SUITE]
        # It refuses a directory that is not new.
        with tempfile.TemporaryDirectory() as work:
            done = subprocess.run(
                [*command, os.path.join(work, "tree"), mirror()], capture_output=True, text=True
            )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")
        os.chmod(unfinished, 0o644)
        os.rename(unfinished, archive)
    return archive


def alpine_archive() -> str | None:
    """Return a tar of Alpine Linux, where somebody put one: none is downloaded."""
    images = os.environ.get("RUNROOTLESS_TEST_IMAGES") or os.path.join(
        os.path.dirname(CHECKOUT), "shared", "images"
    )
    found = sorted(glob.glob(os.path.join(images, "alpine-minirootfs-*.tar.gz")))
    return found[-1] if found else None


class Trees:
    """The trees of one run of the tests, in a directory that goes away with it."""

    def __init__(self, user: Unprivileged) -> None:
        self.user = user
        self.directory = tempfile.mkdtemp(prefix="runrootless-tests-", dir="/var/tmp")
        os.chmod(self.directory, 0o755)
        self._names = 0

    def new_directory(self, name: str, *, for_user: bool) -> str:
        """Make a directory that only this call has."""
        self._names += 1
        path = os.path.join(self.directory, f"{self._names}-{name}")
        os.mkdir(path, 0o755)
        if for_user:
            self.user.give(path)
        return path

    def _unpacked(self, archive: str, form: str, unpack: Callable[[str], None]) -> str:
        path = os.path.join(self.directory, f"{form}-{os.path.basename(archive)}")
        if not os.path.exists(path):
            os.mkdir(path, 0o755)
            unpack(path)
        return path

    def rootless(self, archive: str) -> str:
        """Return the user's form of a tree. It is shared: copy it to change it."""

        def unpack(path: str) -> None:
            self.user.give(path)
            # The user may be able to read neither this checkout nor the archive.
            with open(UNPACK) as script, open(archive, "rb") as source:
                command = ["/usr/bin/python3", "-I", "-c", script.read(), "-", path]
                self.user.run(command, stdin=source.fileno(), timeout=300).check()

        return self._unpacked(archive, "rootless", unpack)

    def oracle(self, archive: str) -> str:
        """Return the real root's form of a tree. It is shared: copy it to change it."""

        def unpack(path: str) -> None:
            command = ["tar", "-C", path, "--numeric-owner", "-xpf", archive, "--exclude=./dev/*"]
            subprocess.run(command, check=True)

        return self._unpacked(archive, "oracle", unpack)

    def copy(self, tree: str, destination: str) -> str:
        """Copy a tree with its owners, modes, times and attributes."""
        # As root, cp keeps the owner; the user owns all there is in a rootless tree.
        subprocess.run(["cp", "-a", "--reflink=auto", tree, destination], check=True)
        return destination

    def discard(self, path: str) -> None:
        """Remove a tree that is not needed any more."""
        # Directories that their owner may not write to are no obstacle to rm as root.
        if not AS_ROOT:
            subprocess.run(["chmod", "-R", "u+rwX", path], capture_output=True)
        shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Remove all trees of this run."""
        self.discard(self.directory)


@dataclass(frozen=True)
class Tree:
    """One root file system in both of its forms, which the tests of a run share."""

    archive: str
    trees: Trees

    @property
    def rootless(self) -> str:
        """The user's form. Copy it to change it."""
        return self.trees.rootless(self.archive)

    @property
    def oracle(self) -> str:
        """The real root's form. Copy it to change it."""
        return self.trees.oracle(self.archive)


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
