"""What fails leaves nothing: full file systems, no free descriptors, memory that is not there.

The same script runs as real root in a chroot, on a file system of the same kind and size.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import MakeBundle
from support.containers import Runrootless
from support.mounts import unmount
from support.oracle import PRELUDE, Case
from support.trees import Tree, Trees
from support.users import AS_ROOT

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="the oracle is a chroot of the real root")

TRIES = 400
KINDS = ("mknod of a device", "symlink", "mkfifo", "mkdir", "O_CREAT", "bind")
# What cannot be made without a record in an attribute of its own.
RECORDED = ("33 mkdir", "33 O_CREAT")

SCRIPT = (
    PRELUDE
    + r"""
import collections

TRIES = 400

def bind(name):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(name)

def make(name):
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))

MAKERS = {
    "mknod of a device": lambda name: os.mknod(name, 0o20640, os.makedev(1, 3)),
    "symlink": lambda name: os.symlink("x" * 200, name),
    "mkfifo": os.mkfifo,
    "mkdir": os.mkdir,
    "O_CREAT": make,
    "bind": bind,
}

def attempt(user, kind):
    outcomes = collections.Counter()
    if user:
        os.setgroups([]); os.setresgid(*3 * [user]); os.setresuid(*3 * [user])
    for number in range(TRIES):
        name = f"{kind.replace(' ', '-')}-{user}-{number}"
        try:
            MAKERS[kind](name)
            outcome = "made"
        except OSError as error:
            outcome = errno.errorcode[error.errno]
        there = os.path.lexists(name)
        outcomes[outcome, "there" if there else "nothing"] += 1
        if there and outcome != "made":
            outcomes["half made"] += 1
        if there:
            os.rmdir(name) if kind == "mkdir" else os.unlink(name)
    for outcome, number in sorted(outcomes.items(), key=str):
        print(user, kind, *([outcome] if isinstance(outcome, str) else outcome), number)
"""
)

# No inode is free, as many have been made before.
NO_INODES = """
os.chdir("/mnt"); os.chmod(".", 0o777)
try:
    for number in range(100000): touch(f"filler-{number}")
except OSError as error: print(errno.errorcode[error.errno])
for user in (0, 33):
    for kind in MAKERS: child(lambda: attempt(user, kind))
"""

# Inodes are free, and no blocks.
NO_BLOCKS = """
os.chdir("/mnt"); os.chmod(".", 0o777); os.mkdir("d"); os.chmod("d", 0o777)
for number in range(300): touch(f"d/{'long name ' * 12}{number}")
for number in range(300): os.unlink(f"d/{'long name ' * 12}{number}")
filler = os.open("filler", os.O_CREAT | os.O_WRONLY)
for size in (65536, 4096, 1024, 512):
    try:
        while True: os.write(filler, b"x" * size)
    except OSError as error: print(errno.errorcode[error.errno])
os.fsync(filler); os.chdir("d")
for user in (0, 33):
    for kind in MAKERS: child(lambda: attempt(user, kind))
"""


@pytest.fixture
def volume(trees: Trees, runrootless: Runrootless) -> Iterator[Callable[..., str]]:
    """Mount small file systems, for the user where a container is to have them."""
    mounted = []

    def make(options: list[str], image: list[str] | None, for_user: bool) -> str:
        directory = trees.new_directory("small", for_user=False)
        path = f"{directory}/mounted"
        os.mkdir(path)
        source = "tmpfs"
        if image is not None:
            source = f"{directory}/image"
            subprocess.run(["mke2fs", "-q", *image, source, "2M"], check=True)
        subprocess.run(["mount", *options, source, path], check=True)
        mounted.append(path)
        if for_user:
            runrootless.user.give(path)
            if os.path.isdir(f"{path}/lost+found"):
                os.rmdir(f"{path}/lost+found")
        elif os.path.isdir(f"{path}/lost+found"):
            os.rmdir(f"{path}/lost+found")
        return path

    yield make
    for path in mounted:
        unmount(path)


# 128 bytes of an inode have no room for attributes, which then need a block each. Nothing is
# kept for root of the host, who could go on where users cannot.
EXT4 = ["-t", "ext4", "-I", "128", "-N", "2000", "-m", "0", "-b", "1024", "-O", "^has_journal"]
VOLUMES = {
    "ext4": (["-o", "loop"], EXT4, NO_BLOCKS),
    "tmpfs-inodes": (["-t", "tmpfs", "-o", "nr_inodes=60,size=4m"], None, NO_INODES),
    "tmpfs-size": (["-t", "tmpfs", "-o", "nr_inodes=20000,size=64k"], None, NO_BLOCKS),
}


def with_volume(path: str) -> Callable[[dict[str, Any]], None]:
    mount = {"destination": "/mnt", "type": "bind", "source": path, "options": ["bind"]}
    return lambda config: config["mounts"].append(mount)


Outcomes = dict[str, dict[str, int]]


def outcomes(output: str) -> Outcomes:
    """Read what the script printed: who made what, with which outcome, and how often."""
    found: Outcomes = {}
    for line in output.splitlines():
        if line.startswith(("0 ", "33 ")):
            what, outcome = next(
                (f"{user} {kind}", rest)
                for user in ("0", "33")
                for kind in KINDS
                if (rest := line.removeprefix(f"{user} {kind} ")) != line
            )
            word, _, number = outcome.rpartition(" ")
            found.setdefault(what, {})[word] = int(number)
    assert len(found) == 2 * len(KINDS), output
    return found


@pytest.mark.parametrize("kind", VOLUMES)
def test_a_full_file_system(
    kind: str,
    bundle: MakeBundle,
    tools_tree: Tree,
    runrootless: Runrootless,
    volume: Callable[..., str],
) -> None:
    options, image, script = VOLUMES[kind]
    theirs, ours = volume(options, image, False), volume(options, image, True)
    done = subprocess.run(
        ["python3", "-S", "-c", (SCRIPT + script).replace("/mnt", theirs)],
        capture_output=True,
        text=True,
        check=True,
    )
    command = ["python3", "-S", "-c", SCRIPT + script]
    container = bundle(tools_tree).set(command).change(with_volume(ours))
    found = outcomes(runrootless.run(container, timeout=900).check().stdout)
    wrong = []
    for what, expected in outcomes(done.stdout).items():
        # What has an owner or a device on record may take more room than with real root.
        allowed = expected.keys() | ({"ENOSPC nothing"} if kind != "tmpfs-inodes" else set())
        if what in RECORDED and kind == "ext4":
            allowed = {"ENOSPC nothing"}
        if not found[what].keys() <= allowed:
            wrong.append(f"{what}: real root {expected}, here {found[what]}")
    assert not wrong, "\n".join(wrong)


# The last descriptors are taken, then each call is made as root and as a user.
WITHOUT_DESCRIPTORS = """
import resource
os.chdir("/srv"); os.mkdir("limits"); os.chdir("limits"); os.chmod(".", 0o777)

def attempt(user):
    if user:
        os.setgroups([]); os.setresgid(*3 * [user]); os.setresuid(*3 * [user])
    touch(f"old-{user}", 0o666); held = socket.socket(socket.AF_UNIX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16)); taken = []
    try:
        while True: taken.append(os.dup(0))
    except OSError as error: print(errno.errorcode[error.errno])
    for flags in (os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC, os.O_TRUNC,
                  0o20200000, os.O_RDWR):
        for name in (f"new-{user}", f"old-{user}", "missing/x", "."):
            show(os.open, name, flags | os.O_WRONLY, 0o640)
    for result in (libc.creat(f"made-{user}".encode(), 0o600),
                   libc.syscall(437, -100, f"second-{user}".encode(),
                                struct.pack("=QQQ", os.O_CREAT | 1, 0o600, 0), 24)):
        print(result, errno.errorcode[ctypes.get_errno()])
    show(os.mkdir, f"d-{user}"); show(os.symlink, "x", f"l-{user}"); show(held.bind, f"s-{user}")
    show(os.mkfifo, f"p-{user}"); show(os.chown, f"p-{user}", user, user); st(f"old-{user}")
    os.close(taken.pop()); os.close(os.open(f"last-{user}", os.O_CREAT | os.O_WRONLY, 0o600))

for user in (0, 33): child(lambda: attempt(user))
for name in sorted(os.listdir(".")): st(name, follow_symlinks=False)
"""

# Pointers to nothing, and file systems that cannot be written to.
WITHOUT_MEMORY = """
os.chdir("/srv"); os.mkdir("memory"); os.chdir("memory"); os.chmod(".", 0o777)
BAD = ctypes.c_void_p(8)

def attempt(user):
    if user:
        os.setgroups([]); os.setresgid(*3 * [user]); os.setresuid(*3 * [user])
    for name in ("mkdir", "creat", "chroot"): raw(name, BAD, 0o700)
    raw("symlink", BAD, b"a"); raw("symlink", b"a", BAD); raw("mknod", BAD, 0o20600, 0x103)
    raw("open", BAD, os.O_CREAT | os.O_WRONLY, 0o600); raw("lchown", BAD, user, user)
    raw("setxattr", b".", b"user.x", BAD, 4, 0); raw("setxattr", b".", BAD, b"a", 1, 0)
    raw("syscall", 437, -100, f"a-{user}".encode(), BAD, 24)
    raw("syscall", 437, -100, f"a-{user}".encode(),
        struct.pack("=QQQQ", os.O_CREAT | 1, 0o600, 0, 1), 32)
    with socket.socket(socket.AF_UNIX) as made: raw("bind", made.fileno(), BAD, 20)
    for name in ("/sys/made", "/sys/kernel"):
        raw("mkdir", name.encode(), 0o700); raw("symlink", b"a", name.encode())
        raw("mknod", name.encode(), 0o20600, 0x103)
        raw("open", name.encode(), os.O_CREAT | os.O_WRONLY, 0o600)

for user in (0, 33): child(lambda: attempt(user))
print(sorted(os.listdir(".")))
"""


@pytest.mark.parametrize("engine", ["notify", "thorough"])
def test_what_fails_leaves_what_the_kernel_leaves(
    engine: str, request: pytest.FixtureRequest
) -> None:
    fixture = "differential" if engine == "notify" else "differential_of_thorough"
    differential = request.getfixturevalue(fixture)
    scripts = {"descriptors": WITHOUT_DESCRIPTORS, "memory": WITHOUT_MEMORY}
    cases = {
        name: Case(name, "python3", PRELUDE + script, "", False) for name, script in scripts.items()
    }
    differences = [differential.compare("failures", cases, name).diff() for name in cases]
    assert not any(differences), "\n".join(differences)
