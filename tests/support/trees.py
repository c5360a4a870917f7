"""Root file systems: made once per machine, unpacked once per run, copied per test.

Each tree exists in two forms. The oracle's belongs to whom it should, for a
chroot of the real root. The rootless one is the same for a user without
privileges: all of it is the user's own, and other owners than root are
recorded in the attribute ``user.rootlesscontainers``.
"""

import fcntl
import glob
import hashlib
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from support.containers import COMMAND
from support.users import AS_ROOT, Unprivileged

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
XATTR = "user.rootlesscontainers"

# What the apt tests install, and so what is downloaded beforehand for both trees.
SERVERS = ("nginx-light", "postgresql-common", "openssh-server", "dbus", "git")
DATABASE = ("postgresql-15", "postgresql-client-15")
# What the engines' tests install.
MESSAGE_BUS = "dbus"

_WITHOUT_DOCUMENTS = [
    f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man", "zoneinfo")
]
_MANAGERS = (
    "acl,attr,cpio,createrepo-c,dnf,libarchive-tools,libcap2-bin,makepkg,"
    "pacman-package-manager,python3-pip,rpm,rsync,ruby,squashfs-tools,systemd,zypper"
)
# Options of mmdebstrap for each tree of Debian. Most add packages to that of "debian".
BASE = "debian"
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
    # What other distributions install packages with, and what else unpacks archives.
    "packages": [
        f"--include={_MANAGERS}",
        *_WITHOUT_DOCUMENTS,
        '--customize-hook=chroot "$1" apt-get clean',
    ],
    # The same of later releases, where some of it comes by itself no longer.
    "packages-trixie": [
        f"--include={_MANAGERS},adduser,python3-setuptools",
        *_WITHOUT_DOCUMENTS,
        '--customize-hook=chroot "$1" apt-get clean',
    ],
    "packages-sid": [
        f"--include={_MANAGERS},adduser,dnf5,python3-setuptools",
        # Its index is valid for a week, and mirrors may be late.
        '--aptopt=Acquire::Check-Valid-Until "false"',
        *_WITHOUT_DOCUMENTS,
        '--customize-hook=chroot "$1" apt-get clean',
    ],
    # Most of what it depends on are packages of Node.js, each of a few files.
    "npm": ["--include=acl,attr,libcap2-bin,npm", *_WITHOUT_DOCUMENTS],
    "jobs": [
        "--include=rpm",
        # There is a copy for each engine.
        *_WITHOUT_DOCUMENTS,
        '--customize-hook=chroot "$1" apt-get clean',
        '--customize-hook=chroot "$1" apt-get install --download-only --yes'
        f" --no-install-recommends {MESSAGE_BUS}",
        '--customize-hook=mkdir "$1"/packages',
        '--customize-hook=mv "$1"/var/cache/apt/archives/*.deb "$1"/packages',
    ],
    # A machine of its own, for users without privileges: no apt. crun of Debian 11 takes
    # newuidmap even to map the user's own ID.
    "host": [
        "--variant=essential",
        "--include=crun,mount,passwd,python3,runc,uidmap",
        *_WITHOUT_DOCUMENTS,
    ],
}
# What no program of the tests reads: half of all files, and trees are copied often. They are
# not left out for good: packages that are installed later bring theirs.
UNREAD = ("doc", "locale", "man", "zoneinfo")
# The trees whose files are counted.
WHOLE = ("servers",)
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


def debian_archive(recipe: str, suite: str = SUITE) -> str:
    """Return the tar of a minimal Debian, made with mmdebstrap at the first call."""
    options = ["--mode=root", *_variant(recipe, suite), *RECIPES[recipe], suite]
    key = hashlib.sha256(repr(options).encode()).hexdigest()[:8]
    directory = cache_directory()
    os.makedirs(directory, 0o755, exist_ok=True)
    archive = os.path.join(directory, f"{suite}-{recipe}-{key}.tar")
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
        # dpkg is not to wait for the disk after each file.
        env = {**os.environ, "DPKG_FORCE": "unsafe-io"}
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        os.rename(unfinished, archive)
    return archive


def _variant(recipe: str, suite: str) -> list[str]:
    """Return what mmdebstrap begins with: nothing, or the tree of ``BASE``, made if need be.

    That takes half of the time of another minimal Debian, and the files are the same.
    """
    has_its_own = any(option.startswith("--variant=") for option in RECIPES[recipe])
    if recipe == BASE or suite != SUITE or has_its_own:
        return ["--variant=minbase"]
    # mmdebstrap makes the device nodes itself.
    archive = shlex.quote(debian_archive(BASE))
    unpack = f"tar -C \"$1\" --xattrs --xattrs-include='*' --exclude='./dev/*' -xpf {archive}"
    return ["--variant=custom", f"--setup-hook={unpack}"]


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
        self._numbers = itertools.count(1)

    def new_directory(self, name: str, *, for_user: bool) -> str:
        """Make a directory that only this call has."""
        path = os.path.join(self.directory, f"{next(self._numbers)}-{name}")
        os.mkdir(path, 0o755)
        if for_user:
            self.user.give(path)
        return path

    def _unpacked(self, archive: str, form: str, unpack: Callable[[str], None]) -> str:
        path = os.path.join(self.directory, f"{form}-{os.path.basename(archive)}")
        if not os.path.exists(path):
            os.mkdir(path, 0o755)
            unpack(path)
            if not any(f"-{name}-" in os.path.basename(archive) for name in WHOLE):
                for name in UNREAD:
                    _empty(f"{path}/usr/share/{name}")
        return path

    def rootless(self, archive: str) -> str:
        """Return the user's form of a tree. It is shared: copy it to change it."""

        def unpack(path: str) -> None:
            self.user.give(path)
            # The user may not be able to read the archive.
            with open(archive, "rb") as source:
                command = [COMMAND, "bundle", "--quiet", "-", f"{path}/bundle"]
                self.user.run(command, stdin=source.fileno(), timeout=900).check()
            # Copies of device nodes stand for nothing, and containers have a /dev of their own.
            made = f"{path}/bundle/rootfs"
            for name in os.listdir(f"{made}/dev"):
                shutil.rmtree(f"{made}/dev/{name}", ignore_errors=True)
                if os.path.lexists(f"{made}/dev/{name}"):
                    os.unlink(f"{made}/dev/{name}")
            for name in os.listdir(made):
                os.rename(f"{made}/{name}", f"{path}/{name}")
            shutil.copystat(made, path)
            shutil.rmtree(f"{path}/bundle")

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

    def copy_all_but_usr(self, tree: str, destination: str) -> str:
        """Copy a tree whose files in /usr are not changed then: they are links to the tree's own.

        New ones may be made there, and links removed.
        """
        names = sorted(set(os.listdir(tree)) - {"usr"})
        os.mkdir(destination)
        copy = ["cp", "-a", "--reflink=auto", *names, f"{destination}/"]
        subprocess.run(copy, cwd=tree, check=True)
        subprocess.run(["cp", "-al", f"{tree}/usr", f"{destination}/"], check=True)
        status = os.stat(tree)
        os.chown(destination, status.st_uid, status.st_gid)
        shutil.copystat(tree, destination)
        return destination

    def discard(self, path: str) -> None:
        """Remove a tree, or a file, that is not needed any more."""
        # Directories that their owner may not write to are no obstacle to rm as root.
        if not AS_ROOT:
            subprocess.run(["chmod", "-R", "u+rwX", path], capture_output=True)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.lexists(path):
            os.unlink(path)

    def close(self) -> None:
        """Remove all trees of this run."""
        self.discard(self.directory)


Marks = dict[str, tuple[object, ...]]


def usr_of(tree: str) -> Marks:
    """Return what tells whether the files in /usr of a tree are as they were.

    How many links they have is not among it.
    """
    found: Marks = {}
    for directory, _, files in os.walk(f"{tree}/usr"):
        for name in files:
            path = os.path.join(directory, name)
            s = os.lstat(path)
            attributes = os.listxattr(path, follow_symlinks=False)
            owner = os.getxattr(path, XATTR, follow_symlinks=False) if XATTR in attributes else b""
            found[path] = (s.st_ino, s.st_mode, s.st_uid, s.st_size, s.st_mtime_ns, owner)
            found[path] += tuple(sorted(attributes))
    return found


def _empty(path: str) -> None:
    """Remove all that is in a directory, if it is there, but not the directory."""
    if os.path.isdir(path):
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


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
