"""What a caller names, found by another process: the kernel's own answer to the caller is right."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runrootless.emulation.handlers import Shared
from runrootless.emulation.paths.resolution import Paths
from runrootless.emulation.paths.walk import Found
from runrootless.linux.files import AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_PATH
from support.emulators import new_emulator

pytestmark = pytest.mark.usefixtures("as_an_agent")

# Answers each line, a descriptor, a path and flags, with where that leads itself.
CALLER = """
import errno, json, os, sys
for line in sys.stdin:
    directory, path, flags = json.loads(line)
    try:
        fd = os.open(path, os.O_PATH | flags, dir_fd=None if directory < 0 else directory)
        found = [os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd).st_mode >> 12]
        print(json.dumps(found), flush=True)
        os.close(fd)
    except OSError as error:
        print(json.dumps(errno.errorcode[error.errno]), flush=True)
"""

LINKS_LIMIT = 40

DIRECTORIES = ("", "a", "a/b", "a/b/c", "d")
FILES = ("f", "a/f", "a/b/g")
# Found in the tree of the caller, of which {tree} is the path.
TARGETS = (
    "a",
    "a/b/c",
    "../d",
    "f",
    "f/",
    "a/",
    "gone",
    "{tree}/a",
    "{tree}/../{name}/d",
    "l1",
    "l2",
    "l3/..",
    "/proc/self",
    "/proc/self/cwd",
    "/proc/self/fd/{fd}",
    "/proc/thread-self/root",
    "/dev/fd/{fd}",
    "/proc/self/fd",
    "/proc",
    "//proc//self",
    "/proc/self/../self/exe",
    "/proc/mounts",
)
LINKS = ("l0", "l1", "l2", "l3", "a/l4", "d/l5")

NAMES = (
    *("a", "b", "c", "d", "f", "g", "gone", "l0", "l1", "l2", "l3", "l4", "l5", ".", "..", ""),
    *("proc", "self", "thread-self", "task", "fd", "cwd", "root", "exe", "ns", "mnt", "status"),
    *("mounts", "net", "{fd}", "{file}", "{pid}", "1", "99999999", "dev", "stdin", "x" * 256),
)
STARTS = ("", "{tree}/", "/proc/self/", "/proc/thread-self/", "/proc/{pid}/", "/", "/dev/fd/")


class Caller:
    """A process, and whoever finds the same files in its name."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        for name in DIRECTORIES:
            (tree / name).mkdir(exist_ok=True)
        for name in FILES:
            (tree / name).touch()
        self.directory = os.open(tree / "a", os.O_RDONLY)
        self.file = os.open(tree / "f", os.O_RDONLY)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", CALLER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=tree,
            pass_fds=(self.directory, self.file),
            text=True,
        )
        self.pid = self._process.pid
        shared: Shared = new_emulator().shared
        shared.procfs.look()
        self.paths: Paths = shared.paths

    def text(self, pattern: str) -> str:
        return pattern.format(
            tree=self.tree, name=self.tree.name, fd=self.directory, file=self.file, pid=self.pid
        )

    def link(self, targets: dict[str, str]) -> None:
        for name in LINKS:
            (self.tree / name).unlink(missing_ok=True)
        for name, target in targets.items():
            (self.tree / name).symlink_to(self.text(target))

    def ask(self, directory: int, path: str, flags: int) -> object:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([directory, path, flags]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def find(self, directory: int, path: str, flags: int) -> object:
        try:
            file = self.paths.open_path(
                self.pid,
                directory,
                os.fsencode(path),
                AT_SYMLINK_NOFOLLOW if flags & os.O_NOFOLLOW else 0,
            )
        except OSError as error:
            return errno_name(error)
        try:
            return [os.readlink(f"/proc/self/fd/{file}"), os.fstat(file).st_mode >> 12]
        finally:
            os.close(file)

    def close(self) -> None:
        self._process.communicate()


def errno_name(error: OSError) -> str:
    assert error.errno is not None
    return errno.errorcode[error.errno]


@pytest.fixture
def caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    # From where the agent finds what it has open.
    monkeypatch.chdir("/proc")
    caller = Caller(tmp_path)
    yield caller
    caller.close()


paths = st.builds(
    lambda start, names: start + "/".join(names),
    st.sampled_from(STARTS),
    st.lists(st.sampled_from(NAMES), max_size=7),
).filter(bool)
links = st.dictionaries(st.sampled_from(LINKS), st.sampled_from(TARGETS))


@settings(
    max_examples=1500,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(targets=links, pattern=paths, at=st.sampled_from((AT_FDCWD, 0, 1)), follows=st.booleans())
def test_any_path_leads_where_it_leads_its_caller(
    caller: Caller, targets: dict[str, str], pattern: str, at: int, follows: bool
) -> None:
    caller.link(targets)
    path = caller.text(pattern)
    directory = at if at < 0 else (caller.directory, caller.file)[at]
    flags = 0 if follows else os.O_NOFOLLOW
    assert caller.find(directory, path, flags) == caller.ask(directory, path, flags)


@settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(targets=links, pattern=paths, follows=st.booleans())
def test_where_a_file_would_be_made(
    caller: Caller, targets: dict[str, str], pattern: str, follows: bool
) -> None:
    caller.link(targets)
    path = caller.text(pattern)
    there = caller.ask(AT_FDCWD, path.rstrip("/") or "/", 0 if follows else os.O_NOFOLLOW)
    try:
        found = caller.paths.find_path(caller.pid, AT_FDCWD, os.fsencode(path), follows)
    except OSError as error:
        # With a slash at the end, what is there has to be a directory.
        assert there == errno_name(error) or path.endswith("/")
        return
    with found:
        if found.file >= 0:
            assert isinstance(there, list)
            assert there[0] == os.readlink(f"/proc/self/fd/{found.file}")
        else:
            assert there == "ENOENT"
            assert_has_room(found)


def assert_has_room(found: Found) -> None:
    assert found.has_room()
    assert stat.S_ISDIR(os.fstat(found.parent).st_mode)
    assert b"/" not in found.name and found.name not in (b"", b".", b"..")
    assert not os.path.lexists(os.fsencode(f"/proc/self/fd/{found.parent}/") + found.name)


@pytest.mark.parametrize("count", [LINKS_LIMIT, LINKS_LIMIT + 1])
@pytest.mark.parametrize("prefix", ["", "{tree}/"])
def test_as_many_links_as_the_kernel_follows(caller: Caller, prefix: str, count: int) -> None:
    (caller.tree / "chain0").touch()
    for number in range(count):
        (caller.tree / f"chain{number + 1}").symlink_to(f"chain{number}")
    path = caller.text(f"{prefix}chain{count}")
    assert caller.find(AT_FDCWD, path, 0) == caller.ask(AT_FDCWD, path, 0)


@pytest.mark.parametrize("length", [4000, 4094, 4095, 4096, 5000])
@pytest.mark.parametrize("prefix", ["", "{tree}/", "/proc/self/cwd/"])
def test_paths_as_long_as_the_kernel_takes(caller: Caller, prefix: str, length: int) -> None:
    begin = caller.text(prefix)
    path = begin + "/" * (length - len(begin) - 3) + "a/f"
    address = os.fsencode(path)
    if length < 4096:
        assert caller.find(AT_FDCWD, path, 0) == caller.ask(AT_FDCWD, path, 0)
    else:
        assert caller.ask(AT_FDCWD, path, 0) == "ENAMETOOLONG"
        # Said where the path is read from the caller's memory.
        assert len(address) >= 4096


def test_the_agents_own_files_are_nobodys(caller: Caller) -> None:
    secret = os.open(caller.tree / "f", O_PATH)
    for way in (f"/proc/{os.getpid()}/fd/{secret}", f"/proc/{os.getpid()}/cwd/{caller.pid}/cwd"):
        assert caller.find(AT_FDCWD, way, 0) == "EACCES"
