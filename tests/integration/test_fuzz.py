"""Any calls with any arguments: the same results, errors and files as for real root."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.containers import Runrootless
from support.drivers import Driver, put_driver
from support.oracle import ENVIRONMENT, chroot_command
from support.trees import Tree, Trees, debian_archive
from support.users import AS_ROOT, Unprivileged

DRIVER = Path(__file__).with_name("fuzz_driver.py")

pytestmark = [
    pytest.mark.skipif(not AS_ROOT, reason="the oracle is a chroot of the real root"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's"),
]

NAMES = st.sampled_from(
    ("f", "suid", "d", "d/", "l", "l/", "dangling", "loop", "loop/x", "p", "s", "n", "sg", "new",
     "d/new", "sg/new", "f/x", "missing/x", "", ".", "..", "/", "x" * 255, "x" * 256, "./" * 2000)
)  # fmt: skip
POINTER = st.sampled_from(
    ("null", "one", "high", "kernel", "absent", "short", "read-only")
).map(lambda kind: ["pointer", kind])  # fmt: skip
TEXT_POINTER = st.sampled_from(("unterminated", "at the end", "across pages")).map(
    lambda kind: ["pointer", kind]
)
PATH = st.one_of(NAMES.map(lambda name: ["path", name]), TEXT_POINTER, POINTER)
BUFFER = st.one_of(st.just(["buffer", 0]), st.just(["buffer", 0]), POINTER)
DESCRIPTOR = st.sampled_from(
    ("cwd", "closed", "file", "directory", "place", "symlink", "pipe", "socket", "minus one",
     "huge")
).map(lambda kind: ["descriptor", kind])  # fmt: skip
# Since Linux 6.13 the calls on descriptors take AT_FDCWD as well, which emulation does not.
OPENED = DESCRIPTOR.filter(lambda descriptor: descriptor[1] != "cwd")
# Of a socket itself the kernel says EAGAIN where a security attribute is to be set.
SETTABLE = OPENED.filter(lambda descriptor: descriptor[1] != "socket")
ID = st.sampled_from((0, 1, 7, 8, 65534, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF))
FLAGS = st.one_of(
    st.sampled_from((0, 0x100, 0x1000, 0x1100, 0x800, 0x400, 0x2000)),
    # What the kernel does not know, beside what it does.
    st.tuples(st.sampled_from((0, 0x100, 0x1000)), st.integers(0, 31)).map(
        lambda flags: flags[0] | 1 << flags[1]
    ),
    st.integers(0, 0xFFFFFFFF),
)
MODE = st.sampled_from((0o644, 0o100755, 0o20600, 0o60640, 0o10600, 0o140777, 0o6755, 0o170000, 0))
DEVICE = st.sampled_from((0, 0x103, 0x12C07, 0xFFFFFFFF))
CREATE = st.sampled_from((0o100 | 0o200 | 1, 0o100 | 0o200 | 2, 0o100 | 0o200 | 1 | 0o2000000))
# Nobody is to wait for the other end of a fifo, and what is cut short loses its set-ID bits.
OPEN = st.sampled_from((0o101, 0o102, 0o501, 0o2, 0o400, 0o402)).map(
    lambda flags: flags | os.O_NONBLOCK
)
HELD = st.sampled_from(("closed", "file", "directory", "place", "minus one")).map(
    lambda kind: ["descriptor", kind]
)
KEPT_BITS = st.sampled_from((0o600, 0o777, 0, 0o4755, 0o2755, 0o1777, 0o20644))
XATTR = st.sampled_from(
    ("user.x", "trusted.x", "security.x", "security.capability", "user.rootlesscontainers", "x", "")
).map(lambda name: ["path", name])  # fmt: skip
SIZE = st.sampled_from((0, 1, 20, 512))
SET_XATTR = st.sampled_from(
    ("user.x", "trusted.x", "security.x", "security.capability", "x", "",
     "system.posix_acl_access", "system.posix_acl_default")
).map(lambda name: ["path", name])  # fmt: skip
# Of access control lists: more often than not in the order in which they are to be.
ENTRY = st.tuples(
    st.sampled_from((2, 2, 2, 8, 8, 8, 1, 16, 64)),
    st.sampled_from((0, 2, 4, 6, 7, 8)),
    st.sampled_from((0, 5, 7, 8, 2**32 - 1)),
)
ENTRIES = st.lists(ENTRY, max_size=3).map(
    lambda entries: sorted([(1, 6, 0), (4, 4, 0), (16, 6, 0), (32, 4, 0), *entries])
)
CAPABILITY = struct.pack("<5I", 0x02000001, 1, 0, 0, 0)
VALUE = st.one_of(
    st.sampled_from((b"", b"a", CAPABILITY, CAPABILITY[:-1])),
    *[
        st.tuples(st.just(struct.pack("<I", version)), ENTRIES).map(
            lambda found: found[0] + b"".join(struct.pack("<HHI", *entry) for entry in found[1])
        )
        for version in (2, 2, 1)
    ],
)
# A value, its size and flags.
SETTING = st.one_of(
    st.tuples(VALUE, st.sampled_from((0, 0, 0, 1, 2, 4))).map(
        lambda found: [["value", found[0].hex()], len(found[0]), found[1]]
    ),
    st.tuples(POINTER, st.sampled_from((0, 1, 36, 65537)), st.just(0)).map(list),
)
IDS = st.lists(ID, max_size=4)


def of(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.just(name), st.tuples(*arguments)).map(lambda c: [c[0], list(c[1])])


def setting(name: str, place: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(place, SET_XATTR, SETTING).map(lambda c: [name, [c[0], c[1], *c[2]]])


FILE_CALLS = (
    of("stat", PATH, BUFFER),
    of("lstat", PATH, BUFFER),
    of("fstat", DESCRIPTOR, BUFFER),
    of("newfstatat", DESCRIPTOR, PATH, BUFFER, FLAGS),
    of("statx", DESCRIPTOR, PATH, FLAGS, st.sampled_from((0, 0x7FF, 0xFFF, 0x80000000)), BUFFER),
    of("chown", PATH, ID, ID),
    of("lchown", PATH, ID, ID),
    of("fchown", DESCRIPTOR, ID, ID),
    of("fchownat", DESCRIPTOR, PATH, ID, ID, FLAGS),
    of("mknod", PATH, MODE, DEVICE),
    of("mknodat", DESCRIPTOR, PATH, MODE, DEVICE),
    of("open", PATH, CREATE, MODE),
    of("openat", DESCRIPTOR, PATH, CREATE, MODE),
    of("open", PATH, OPEN, MODE),
    of("openat", DESCRIPTOR, PATH, OPEN, MODE),
    of("chmod", PATH, KEPT_BITS),
    of("fchmod", HELD, KEPT_BITS),
    of("fchmodat", DESCRIPTOR, PATH, KEPT_BITS),
    of(
        "utimensat",
        HELD,
        PATH,
        st.sampled_from((["pointer", "null"],)),
        st.sampled_from((0, 0x100, 1)),
    ),
    of("mkdir", PATH, MODE),
    of("mkdirat", DESCRIPTOR, PATH, MODE),
    of("symlink", PATH, PATH),
    of("symlinkat", PATH, DESCRIPTOR, PATH),
    of("getxattr", PATH, XATTR, BUFFER, SIZE),
    of("lgetxattr", PATH, XATTR, BUFFER, SIZE),
    of("fgetxattr", OPENED, XATTR, BUFFER, SIZE),
    of("listxattr", PATH, BUFFER, SIZE),
    of("llistxattr", PATH, BUFFER, SIZE),
    of("flistxattr", OPENED, BUFFER, SIZE),
    setting("setxattr", PATH),
    setting("lsetxattr", PATH),
    setting("fsetxattr", SETTABLE),
    of("removexattr", PATH, SET_XATTR),
    of("lremovexattr", PATH, SET_XATTR),
    of("fremovexattr", SETTABLE, SET_XATTR),
)
ID_CALLS = (
    *(of(name) for name in ("getuid", "geteuid", "getgid", "getegid")),
    *(of(name, BUFFER, BUFFER, BUFFER) for name in ("getresuid", "getresgid")),
    of("getgroups", st.sampled_from((0, 1, 4, 65536, 2**31, 2**32 - 1)), BUFFER),
    *(of(name, ID) for name in ("setuid", "setgid", "setfsuid", "setfsgid")),
    *(of(name, ID, ID) for name in ("setreuid", "setregid")),
    *(of(name, ID, ID, ID) for name in ("setresuid", "setresgid")),
    IDS.map(lambda ids: ["setgroups", [len(ids), ["ids", ids]]]),
    of("setgroups", st.sampled_from((0, 1, 65537, 2**31)), POINTER),
    of("getsockopt", DESCRIPTOR, st.sampled_from((1, 0, 6)), st.just(17), BUFFER, POINTER),
)

NAMES_OF_OTHERS = st.sampled_from(
    ("f", "d", "l", "dangling", "loop", "p", "sg", "sg/new", "r", "o", "g", "x", "closed",
     "closed/", "closed/f", "closed/new", "closed/none/x", "into", "into/f", "into/new",
     "into/../r", "sticky", "sticky/o", "sticky/r", "sticky/new", "sticky/d", "sticky/d/new",
     "sticky/d/..", "new", "new/", "d/new", "f/x", ".", "..", "", "/", "/proc/self/fd/0/x",
     "/etc/shadow", "/root/x", "/tmp/../etc")
)  # fmt: skip
OTHER = st.one_of(
    NAMES_OF_OTHERS.map(lambda name: ["path", name]),
    NAMES_OF_OTHERS.map(lambda name: ["path", name]),
    TEXT_POINTER,
    POINTER,
)
# Nobody is to wait for the other end of a fifo, as creat(2) would.
OPEN_FLAGS = st.one_of(
    st.sampled_from((0, 1, 2, 3, 0o1000, 0o1001, 0o101, 0o102, 0o301, 0o2001)),
    # The kernel's own bits for these calls, less O_ASYNC and O_DIRECT.
    st.integers(0, 0o37777777).map(lambda flags: flags & ~0o60000),
).map(lambda flags: flags | os.O_NONBLOCK)
TIMES = st.sampled_from((["pointer", "null"], ["pointer", "read-only"], ["pointer", "absent"]))
USER_CALLS = (
    of("open", OTHER, OPEN_FLAGS, st.just(0o640)),
    of("openat", DESCRIPTOR, OTHER, OPEN_FLAGS, st.just(0o640)),
    of("stat", OTHER, BUFFER),
    of("lstat", OTHER, BUFFER),
    of("newfstatat", DESCRIPTOR, OTHER, BUFFER, FLAGS),
    of("readlink", OTHER, BUFFER, SIZE),
    of("readlinkat", DESCRIPTOR, OTHER, BUFFER, SIZE),
    of("chown", OTHER, ID, ID),
    of("fchownat", DESCRIPTOR, OTHER, ID, ID, FLAGS),
    of("access", OTHER, st.integers(0, 8)),
    of("faccessat", DESCRIPTOR, OTHER, st.integers(0, 7)),
    of("faccessat2", DESCRIPTOR, OTHER, st.integers(0, 7), st.sampled_from((0, 0x200, 0x1100))),
    of("chdir", OTHER),
    of("fchdir", DESCRIPTOR),
    of("truncate", OTHER, st.sampled_from((0, 5, 2**63))),
    of("mkdir", OTHER, st.just(0o755)),
    of("mknod", OTHER, st.sampled_from((0o10644, 0o100600, 0o20600)), st.just(0x103)),
    of("symlink", OTHER, OTHER),
    of("symlinkat", OTHER, DESCRIPTOR, OTHER),
    of("link", OTHER, OTHER),
    of("linkat", DESCRIPTOR, OTHER, DESCRIPTOR, OTHER, st.sampled_from((0, 0x400, 1))),
    of("unlink", OTHER),
    of("rmdir", OTHER),
    of("unlinkat", DESCRIPTOR, OTHER, st.sampled_from((0, 0x200, 0x100))),
    of("rename", OTHER, OTHER),
    of("renameat2", DESCRIPTOR, OTHER, DESCRIPTOR, OTHER, st.sampled_from((0, 1, 2, 3, 8))),
    of("chmod", OTHER, st.sampled_from((0o600, 0o777, 0))),
    of("fchmod", DESCRIPTOR, st.just(0o666)),
    of("fchmodat", DESCRIPTOR, OTHER, st.just(0o666)),
    of("utime", OTHER, TIMES),
    of("utimensat", DESCRIPTOR, OTHER, TIMES, st.sampled_from((0, 0x100, 0x1000))),
    of("statfs", OTHER, BUFFER),
    of("getxattr", OTHER, SET_XATTR, BUFFER, SIZE),
    of("fgetxattr", OPENED, SET_XATTR, BUFFER, SIZE),
    of("llistxattr", OTHER, BUFFER, SIZE),
    setting("setxattr", OTHER),
    setting("lsetxattr", OTHER),
    setting("fsetxattr", SETTABLE),
    of("removexattr", OTHER, SET_XATTR),
    of("fremovexattr", SETTABLE, SET_XATTR),
)
BECOME = st.sampled_from(
    ((5, 5, []), (7, 5, []), (7, 8, []), (5, 8, []), (5, 5, [8, 9]), (0, 0, []))
).map(lambda who: ["become", list(who)])


@pytest.fixture(scope="module", params=["notify", "fast path"])
def drivers(
    request: pytest.FixtureRequest, trees: Trees, session_user: Unprivileged
) -> Iterator[tuple[Driver, Driver]]:
    """The drivers of real root's side and of the container's, with an engine."""
    is_fast = request.param == "fast path"
    # Only functions are answered in the program.
    args = ["python3", "/fuzz_driver.py", *(["library"] if is_fast else [])]
    tree = Tree(debian_archive("tools"), trees)
    roots = []
    for form, for_user in ((tree.oracle, False), (tree.rootless, True)):
        directory = trees.new_directory("fuzz", for_user=for_user)
        root = trees.copy(form, f"{directory}/rootfs")
        for path in put_driver(DRIVER, root):
            if for_user:
                session_user.give(path)
        roots.append((directory, root))
    options = ["--fast-path", "on"] if is_fast else ["--engine", request.param]
    runrootless = Runrootless(session_user, options)
    bundle = runrootless.bundle_at(*roots[1]).set(args)
    command = runrootless.command("run", "--bundle", bundle.path, runrootless.new_id())
    oracle = subprocess.Popen(
        chroot_command(roots[0][1], args),
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=sys.stderr.fileno(),
        text=True,
    )
    ours = session_user.start(command, stdin=subprocess.PIPE, stderr=sys.stderr.fileno())
    both = Driver(oracle), Driver(ours)
    yield both
    for driver in both:
        driver.close()
    runrootless.assert_nothing_left()
    for directory, _ in roots:
        trees.discard(directory)


def assert_same(drivers: tuple[Driver, Driver], calls: list[Any]) -> None:
    expected, found = (driver.carry_out(calls) for driver in drivers)
    assert found == expected, json.dumps(calls)


ANY = settings(
    max_examples=300,
    # New examples are for those who look for faults; CI is to say the same of the same sources.
    derandomize="CI" in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@ANY
@given(calls=st.lists(st.one_of(*FILE_CALLS), min_size=1, max_size=8))
def test_any_calls_about_files(drivers: tuple[Driver, Driver], calls: list[Any]) -> None:
    assert_same(drivers, calls)


@ANY
@given(calls=st.lists(st.one_of(*ID_CALLS), min_size=1, max_size=8))
def test_any_calls_about_ids(drivers: tuple[Driver, Driver], calls: list[Any]) -> None:
    assert_same(drivers, calls)


@pytest.mark.parametrize("drivers", ["thorough"], indirect=True)
@ANY
@given(who=BECOME, calls=st.lists(st.one_of(*USER_CALLS), min_size=1, max_size=8))
def test_any_calls_of_a_user(
    drivers: tuple[Driver, Driver], who: list[Any], calls: list[Any]
) -> None:
    assert_same(drivers, [who, *calls])
