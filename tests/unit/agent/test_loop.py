"""What the loop in C answers, lets through and leaves, by the calls of a process of its own."""

import ctypes
import errno
import mmap
import os
import random
import select
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runrootless.agent import loop
from runrootless.agent.ledger import NO_CALL
from runrootless.agent.loop import ENDED, LEFT
from runrootless.emulation.callers.credential_table import INFINITY
from runrootless.emulation.owners.ownership import ATTRIBUTE
from runrootless.emulation.stores.record import Record, decode, encode
from runrootless.linux import eventfd
from runrootless.linux.files import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_PATH
from runrootless.linux.libc import c_void_p, silent_function
from runrootless.linux.limits import RLIMIT_RTTIME, set_soft_limit
from support.callers import SYSTEM_CALLS, Caller, Outcome

OWN = os.getuid(), os.getgid()
PLAIN = b"/etc/passwd"
O_TMPFILE = os.O_TMPFILE
BY_PATH = [name for name in ("newfstatat", "stat", "lstat") if name in SYSTEM_CALLS]
OPENING = [name for name in ("openat", "open") if name in SYSTEM_CALLS]
MAKING = [name for name in ("mkdirat", "mkdir", "symlinkat", "symlink") if name in SYSTEM_CALLS]
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root's files are what they are")

# st_mode, st_uid, st_gid and st_rdev of struct stat.
FIELDS = struct.Struct("=24xIII4xQ" if os.uname().machine == "x86_64" else "=16xI4xIIQ")

OWNER_OFFSET = 28 if os.uname().machine == "x86_64" else 24

# The agent's working directory.
pytestmark = pytest.mark.usefixtures("in_proc")


@pytest.fixture
def recorded(tmp_path: Path) -> bytes:
    """A file that a record says is somebody else's."""
    path = tmp_path / "recorded"
    path.touch()
    os.setxattr(path, ATTRIBUTE, encode(Record(5, 6)))
    return bytes(path)


def call_stat(
    caller: Caller,
    path: bytes | None,
    flags: int = 0,
    directory: int = AT_FDCWD,
    offset: int = 0,
    name: str = "newfstatat",
) -> Outcome:
    address = 0 if path is None else caller.text(path, offset)
    if name == "newfstatat":
        return caller.call(name, directory, address, caller.buffer, flags)
    return caller.call(name, address, caller.buffer)


def owner(outcome: Outcome) -> tuple[int, int]:
    """Return whose a file is that the loop has said something about, or let through."""
    assert not outcome.is_left
    assert (outcome.value, outcome.error) == (0, 0)
    assert outcome.written is not None
    _, uid, gid, _ = FIELDS.unpack_from(outcome.written)
    return uid, gid


def is_passed(outcome: Outcome, error: int) -> bool:
    """Return whether the kernel has told the caller of a failure."""
    return not outcome.is_left and outcome.error == error


# What a file looks like.


@pytest.mark.parametrize("name", BY_PATH)
def test_whose_a_file_is(caller: Caller, recorded: bytes, name: str) -> None:
    for _ in range(2):
        assert owner(call_stat(caller, PLAIN, name=name)) == (0, 0)
        assert owner(call_stat(caller, recorded, name=name)) == (5, 6)


def test_all_else_is_as_the_kernel_says(caller: Caller, recorded: bytes) -> None:
    written = call_stat(caller, recorded).written
    assert written is not None
    os.removexattr(recorded, ATTRIBUTE)
    os.chown(recorded, 0, 0) if OWN == (0, 0) else None
    os.setxattr(recorded, ATTRIBUTE, encode(Record(5, 6)))
    begin, end = FIELDS.size - 8, FIELDS.size
    again = call_stat(caller, recorded).written
    assert again is not None
    # But for st_ctime, behind which nothing follows.
    assert written[: begin - 24] == again[: begin - 24]
    assert written[end : end + 48] == again[end : end + 48]


@AS_ROOT
def test_files_of_nobody_here_are_roots(caller: Caller, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.chown(path, 65534, 65534)
    assert owner(call_stat(caller, bytes(path))) == (0, 0)


def test_the_record_of_a_device_node(caller: Caller, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o640)
    os.setxattr(path, ATTRIBUTE, encode(Record(5, 6, stat.S_IFBLK, os.makedev(8, 3))))
    written = call_stat(caller, bytes(path)).written
    assert written is not None
    assert FIELDS.unpack_from(written) == (stat.S_IFBLK | 0o640, 5, 6, os.makedev(8, 3))


def test_a_record_that_changes(caller: Caller, recorded: bytes) -> None:
    # What is remembered is that of files which have not changed for a while.
    while time.time() < os.stat(recorded).st_ctime + 0.2:
        time.sleep(0.01)
    assert owner(call_stat(caller, recorded)) == (5, 6)
    for uid in range(7, 40):
        assert owner(call_stat(caller, recorded)) in ((5, 6), (uid - 1, 6))
        os.setxattr(recorded, ATTRIBUTE, encode(Record(uid, 6)))
        assert owner(call_stat(caller, recorded)) == (uid, 6)


def test_what_is_not_there_is_the_kernels_to_tell(caller: Caller, tmp_path: Path) -> None:
    assert is_passed(call_stat(caller, bytes(tmp_path / "absent")), errno.ENOENT)
    assert is_passed(call_stat(caller, PLAIN + b"/x"), errno.ENOTDIR)
    assert is_passed(call_stat(caller, b"absent", directory=99999), errno.EBADF)
    assert is_passed(call_stat(caller, b""), errno.ENOENT)
    assert is_passed(caller.call("fstat", 99999, caller.buffer), errno.EBADF)


def test_a_path_that_goes_on_in_the_next_page_is_left(caller: Caller, recorded: bytes) -> None:
    end = mmap.PAGESIZE - len(recorded)
    assert call_stat(caller, recorded, offset=end).is_left
    # With its terminating null byte it still lies in the page.
    assert owner(call_stat(caller, recorded, offset=end - 1)) == (5, 6)


def test_a_long_path_is_left(caller: Caller) -> None:
    padding = b"/." * 123
    assert owner(call_stat(caller, padding[: 255 - len(PLAIN)] + PLAIN)) == (0, 0)
    assert call_stat(caller, padding[: 254 - len(PLAIN)] + b"//" + PLAIN).is_left


def test_a_descriptor(caller: Caller, recorded: bytes) -> None:
    for path, expected in ((PLAIN, (0, 0)), (recorded, (5, 6))):
        descriptor = caller.call("openat", AT_FDCWD, caller.text(path), os.O_RDONLY).value
        assert owner(call_stat(caller, b"", AT_EMPTY_PATH, descriptor)) == expected
        assert owner(caller.call("fstat", descriptor, caller.buffer)) == expected
        # The kernel takes the lower half.
        assert owner(caller.call("fstat", descriptor | 1 << 40, caller.buffer)) == expected


def test_a_path_from_a_directory(caller: Caller, recorded: bytes) -> None:
    directory = caller.call(
        "openat", AT_FDCWD, caller.text(os.path.dirname(recorded)), os.O_DIRECTORY
    ).value
    assert owner(call_stat(caller, b"recorded", directory=directory)) == (5, 6)
    assert is_passed(call_stat(caller, b"absent", directory=directory), errno.ENOENT)


def test_a_path_from_the_working_directory(caller: Caller, recorded: bytes) -> None:
    assert owner(call_stat(caller, os.path.relpath(recorded))) == (5, 6)
    # In a procfs, "self" and the like are not the same for all.
    assert call_stat(caller, b"absent").is_left
    assert call_stat(caller, b"self").is_left


@pytest.mark.parametrize(
    "path",
    [
        b"/proc",
        b"/proc/self",
        b"/proc/self/comm",
        b"/proc/self/cwd/version",
        b"/proc/self/root/etc/passwd",
        b"/proc/thread-self/../../nowhere",
        b"/proc/absent",
        b"/dev/fd/0",
    ],
)
@pytest.mark.parametrize("flags", [0, AT_SYMLINK_NOFOLLOW])
def test_what_is_different_for_each_process_is_left(
    caller: Caller, path: bytes, flags: int
) -> None:
    assert call_stat(caller, path, flags).is_left


@pytest.mark.parametrize("target", ["/proc/self/comm", "/proc/self/fd/0", "/dev/fd/0", "loop"])
def test_symlinks_to_such_places_are_left(caller: Caller, tmp_path: Path, target: str) -> None:
    (tmp_path / "loop").symlink_to(target)
    (tmp_path / "to-loop").symlink_to("loop")
    assert call_stat(caller, bytes(tmp_path / "to-loop")).is_left


def test_files_that_cannot_carry_a_record_are_looked_at(caller: Caller, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(PLAIN.decode())
    os.mkfifo(tmp_path / "fifo")
    looked_at = []

    def look(file: int, status: bytearray) -> bool:
        looked_at.append(os.readlink(f"/proc/self/fd/{file}"))
        assert os.fstat(file).st_ino == struct.unpack_from("=8xQ", status)[0]
        struct.pack_into("=II", status, OWNER_OFFSET, 5, len(looked_at))
        return True

    caller.look = look
    assert owner(call_stat(caller, bytes(tmp_path / "link"))) == (0, 0)
    assert owner(call_stat(caller, bytes(tmp_path / "link"), AT_SYMLINK_NOFOLLOW)) == (5, 1)
    assert owner(call_stat(caller, bytes(tmp_path / "fifo"))) == (5, 2)
    # Nothing is remembered of these.
    assert owner(call_stat(caller, bytes(tmp_path / "fifo"))) == (5, 3)
    assert looked_at == [str(tmp_path / name) for name in ("link", "fifo", "fifo")]


def test_what_is_the_truth_when_looked_at_is_let_through(caller: Caller, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert owner(call_stat(caller, bytes(tmp_path / "fifo"))) == OWN
    # Into memory that cannot be written to: the kernel says so.
    outcome = caller.call("newfstatat", AT_FDCWD, caller.text(bytes(tmp_path / "fifo")), 1, 0)
    assert is_passed(outcome, errno.EFAULT)


def test_what_cannot_be_looked_at_is_left(caller: Caller, tmp_path: Path) -> None:
    def look(file: int, status: bytearray) -> bool:
        raise OSError(errno.EIO, "")

    os.mkfifo(tmp_path / "fifo")
    caller.look = look
    assert call_stat(caller, bytes(tmp_path / "fifo")).is_left
    caller.unusual.set(False)
    assert call_stat(caller, bytes(tmp_path / "fifo")).is_left


def test_after_a_look_the_loop_goes_on(caller: Caller, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    caller.unusual.set(False)
    path = caller.text(bytes(tmp_path / "fifo"))
    child = os.fork()
    if child == 0:
        for _ in range(3):
            caller.begin("newfstatat", [AT_FDCWD, path, caller.buffer, 0])
            caller.finish(False)
        caller.begin("getresuid", [])
        os._exit(0)
    assert caller.loop.serve() == LEFT
    assert os.waitpid(child, 0)[1] == 0
    os.kill(caller.pid, 9)


# statx(2).


def call_statx(caller: Caller, path: bytes, flags: int = 0, mask: int = 0x7FF) -> Outcome:
    return caller.call("statx", AT_FDCWD, caller.text(path), flags, mask, caller.buffer)


def extended_owner(outcome: Outcome) -> tuple[int, int]:
    assert (outcome.is_left, outcome.error) == (False, 0)
    assert outcome.written is not None
    uid, gid = struct.unpack_from("=II", outcome.written, 20)
    return uid, gid


def test_whose_a_file_is_by_statx(caller: Caller, recorded: bytes) -> None:
    for mask in (0, 0x7FF, 0xFFF, 2):
        assert extended_owner(call_statx(caller, PLAIN, mask=mask)) == (0, 0)
        assert extended_owner(call_statx(caller, recorded, mask=mask)) == (5, 6)
    assert is_passed(call_statx(caller, recorded, mask=1 << 31), errno.EINVAL)
    assert call_statx(caller, b"/proc/self/comm").is_left


def test_the_record_of_a_device_node_by_statx(caller: Caller, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o640)
    os.setxattr(path, ATTRIBUTE, encode(Record(5, 6, stat.S_IFCHR, os.makedev(300, 70000))))
    written = call_statx(caller, bytes(path)).written
    assert written is not None
    assert struct.unpack_from("=IIH", written, 20) == (5, 6, stat.S_IFCHR | 0o640)
    assert struct.unpack_from("=II", written, 128) == (300, 70000)


def test_files_that_cannot_carry_a_record_are_left_by_statx(caller: Caller, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert call_statx(caller, bytes(tmp_path / "fifo")).is_left


def test_arguments_that_take_a_closer_look(caller: Caller) -> None:
    assert call_stat(caller, None).is_left
    assert call_stat(caller, None, AT_EMPTY_PATH).is_left
    assert call_stat(caller, PLAIN, 1).is_left


def test_descriptors_that_are_none(caller: Caller) -> None:
    for descriptor in (-1, -5, AT_FDCWD, 1 << 31):
        assert is_passed(caller.call("fstat", descriptor, caller.buffer), errno.EBADF)
        assert owner(call_stat(caller, PLAIN, directory=descriptor)) == (0, 0)
        if descriptor != AT_FDCWD:
            assert is_passed(call_stat(caller, b"", AT_EMPTY_PATH, descriptor), errno.EBADF)
            assert is_passed(call_stat(caller, b"x", directory=descriptor), errno.EBADF)
    # The working directory, which is in a procfs here.
    assert call_stat(caller, b"", AT_EMPTY_PATH).is_left


def test_memory_that_cannot_be_written_to(caller: Caller, recorded: bytes) -> None:
    for address in (0, 1 << 63, (1 << 64) - 1, caller.buffer - 1):
        outcome = caller.call("newfstatat", AT_FDCWD, caller.text(recorded), address, 0)
        assert is_passed(outcome, errno.EFAULT)


def test_a_malformed_record_is_looked_at(caller: Caller, recorded: bytes) -> None:
    os.setxattr(recorded, ATTRIBUTE, b"\xff")
    assert owner(call_stat(caller, recorded)) == OWN
    caller.look = lambda file, status: True
    outcome = caller.call("newfstatat", AT_FDCWD, caller.text(recorded), 1, 0)
    assert is_passed(outcome, errno.EFAULT)


# New processes. The kernel makes none by these flags.

_SIGHAND_ALONE = 0x800
_NAMESPACES = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)


@given(st.integers(0, (1 << 64) - 1).map(lambda flags: flags & ~0x100 | _SIGHAND_ALONE))
@example(_SIGHAND_ALONE)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_new_processes(caller: Caller, flags: int) -> None:
    caller.set_views_vary(True)
    outcome = caller.call("clone3", caller.text(struct.pack("=8Q", flags, *[0] * 7)), 64)
    assert outcome.is_left == any(flags & namespace for namespace in _NAMESPACES)
    assert outcome.error != 0


def test_new_processes_of_what_cannot_be_read(caller: Caller) -> None:
    assert caller.call("clone3", 1, 64).is_left


# Whose turn it is.


def test_where_views_vary_files_are_left(caller: Caller) -> None:
    caller.set_views_vary(True)
    assert call_stat(caller, PLAIN).is_left
    assert not caller.call("getuid").is_left
    caller.set_views_vary(False)
    assert not call_stat(caller, PLAIN).is_left


def test_readers_of_status_files_are_left(caller: Caller) -> None:
    for thread in (*range(1000, 1063), caller.pid):
        caller.readers.add(thread)
    assert call_stat(caller, PLAIN).is_left
    caller.readers.discard(1000)
    assert call_stat(caller, PLAIN).is_left
    caller.readers.discard(caller.pid)
    assert not call_stat(caller, PLAIN).is_left


@pytest.mark.parametrize("by_descriptor", [False, True])
def test_files_apart_are_left(caller: Caller, recorded: bytes, by_descriptor: bool) -> None:
    """Also if it is known by now what they look like, and by their device."""

    def look(path: bytes) -> Outcome:
        if not by_descriptor:
            return call_stat(caller, path)
        opened = caller.call("openat", AT_FDCWD, caller.text(path), os.O_RDONLY)
        assert opened.value >= 0
        return call_stat(caller, b"", AT_EMPTY_PATH, opened.value)

    here, elsewhere = os.stat(recorded), os.stat(PLAIN)
    assert not look(recorded).is_left
    caller.apart.add(here.st_dev, here.st_ino + 1)
    assert not look(recorded).is_left
    caller.apart.add(here.st_dev, here.st_ino)
    assert look(recorded).is_left
    assert not look(PLAIN).is_left
    for number in range(100):
        caller.apart.add(1 << 40, number)
    assert not look(PLAIN).is_left
    caller.apart.add(elsewhere.st_dev)
    assert look(PLAIN).is_left


def test_any_file_may_be_apart_if_many_are(caller: Caller) -> None:
    for number in range(200):
        caller.apart.add(1 << 40 | number, 1)
    assert call_stat(caller, PLAIN).is_left


def test_whoever_sleeps_is_woken(caller: Caller) -> None:
    caller.activity.fall_asleep()
    call_stat(caller, PLAIN)
    assert not caller.activity.asleep
    assert eventfd.take(caller.activity.wakes) == 1
    call_stat(caller, PLAIN)
    assert not select.select([caller.activity.wakes], [], [], 0)[0]


def test_what_is_left_is_in_the_slot_and_what_is_answered_is_not(caller: Caller) -> None:
    caller.begin("getresuid", [1, 2, 3, 4, 5])
    assert caller.loop.serve() == LEFT
    assert caller.slot.identifier != NO_CALL
    (pid,) = struct.unpack_from("=I", caller.slot.notification, 8)
    assert pid == caller.pid
    # Not answered: its process ends with it.
    os.kill(caller.pid, 9)


def test_several_calls_at_one_go(caller: Caller) -> None:
    caller.unusual.set(False)
    # The kernel is asked for the next call until there is one to be left.
    child = os.fork()
    if child == 0:
        for _ in range(3):
            caller.begin("getuid", [])
            caller.finish(False)
        caller.begin("getresuid", [])
        os._exit(0)
    assert caller.loop.serve() == LEFT
    os.waitpid(child, 0)
    os.kill(caller.pid, 9)


@pytest.mark.parametrize("polls", [False, True])
def test_the_end(polls: bool) -> None:
    caller = Caller(polls=polls)
    assert owner(call_stat(caller, PLAIN)) == (0, 0)
    caller.end()
    caller = Caller(polls=polls)
    caller.begin("getuid", [])
    os.kill(caller.pid, 9)
    os.waitpid(caller.pid, 0)
    # Whether it was received before it ended or not.
    while caller.loop.serve() != ENDED:
        pass
    os.close(caller.listener)
    os.close(caller.activity.wakes)


def test_users_are_left_where_that_is_wanted(recorded: bytes) -> None:
    caller = Caller(root_only=True)
    assert owner(call_stat(caller, recorded)) == (5, 6)
    set_soft_limit(caller.pid, RLIMIT_RTTIME, 1 << 62 | 33 << 31 | 34, INFINITY)
    assert call_stat(caller, recorded).is_left
    assert caller.call("getuid").value == 33
    caller.end()


# Who a process is.


@pytest.mark.parametrize(
    ("number", "ids"),
    [
        (INFINITY, (0, 0)),
        (0, (0, 0)),
        ((1 << 62) - 1, (0, 0)),
        (1 << 62 | 33 << 31 | 34, (33, 34)),
        (1 << 62 | (1 << 31) - 1 << 31 | (1 << 31) - 1, ((1 << 31) - 1, (1 << 31) - 1)),
        (1 << 63, None),
        (1 << 63 | 1 << 60 | 5, None),
        (INFINITY - 1, None),
    ],
)
def test_ids(caller: Caller, number: int, ids: tuple[int, int] | None) -> None:
    set_soft_limit(caller.pid, RLIMIT_RTTIME, number, INFINITY)
    calls = [caller.call(name) for name in ("getuid", "geteuid", "getgid", "getegid")]
    assert [one.is_left for one in calls] == [ids is None] * 4
    if ids is not None:
        assert [one.value for one in calls] == [ids[0], ids[0], ids[1], ids[1]]


# New files, and opening.


def call_open(caller: Caller, path: bytes | Path, flags: int, name: str = "openat") -> Outcome:
    text = caller.text(bytes(path))
    arguments = (AT_FDCWD, text) if name == "openat" else (text,)
    return caller.call(name, *arguments, flags, 0o600)


def call_make(caller: Caller, name: str, path: bytes | Path) -> Outcome:
    text, target = caller.text(bytes(path)), caller.text(b"target", page=1)
    before = {"symlink": (target,), "symlinkat": (target, AT_FDCWD), "mkdirat": (AT_FDCWD,)}
    return caller.call(name, *before.get(name, ()), text, 0o700)


def make_whiteout(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR, 0)
    except PermissionError:
        pytest.skip("no whiteouts on this kernel")


@pytest.mark.parametrize("name", OPENING)
def test_new_files_of_root_are_the_kernels(caller: Caller, tmp_path: Path, name: str) -> None:
    for flags in (os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_EXCL | os.O_RDWR):
        path = tmp_path / f"new{flags}"
        assert not call_open(caller, path, flags, name).is_left
        assert path.exists()
        assert is_passed(call_open(caller, path, flags | os.O_EXCL, name), errno.EEXIST)
        assert not call_open(caller, path, os.O_RDWR, name).is_left


@pytest.mark.parametrize("name", MAKING)
def test_what_root_makes_is_the_kernels(caller: Caller, tmp_path: Path, name: str) -> None:
    assert not call_make(caller, name, tmp_path / "new").is_left
    assert os.path.lexists(tmp_path / "new")
    assert is_passed(call_make(caller, name, tmp_path / "new"), errno.EEXIST)


@pytest.mark.parametrize("path", [b"", b"/", b".", b"..", b"x/.", b"x/..//"])
@pytest.mark.parametrize("name", MAKING)
def test_names_that_are_none_are_left(caller: Caller, name: str, path: bytes) -> None:
    assert call_make(caller, name, path).is_left


def _make_set_group_id(directory: Path) -> None:
    directory.chmod(0o2755)


def _make_default_list(directory: Path) -> None:
    entries = ((1, 7), (4, 5), (32, 5))
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry, -1) for entry in entries)
    os.setxattr(directory, "system.posix_acl_default", value)


@pytest.mark.parametrize("furnish", [_make_set_group_id, _make_default_list])
def test_directories_that_pass_something_on_are_left(
    caller: Caller, tmp_path: Path, furnish: Callable[[Path], None]
) -> None:
    furnish(tmp_path)
    for name in MAKING:
        assert call_make(caller, name, tmp_path / name).is_left
    for flags in (os.O_CREAT, os.O_CREAT | os.O_EXCL):
        assert call_open(caller, tmp_path / f"file{flags}", flags).is_left


def test_new_files_of_users_are_left(caller: Caller, tmp_path: Path) -> None:
    set_soft_limit(caller.pid, RLIMIT_RTTIME, 1 << 62 | 33 << 31 | 34, INFINITY)
    for name in MAKING:
        assert call_make(caller, name, tmp_path / name).is_left
    for flags in (os.O_CREAT, os.O_CREAT | os.O_EXCL):
        assert call_open(caller, tmp_path / f"file{flags}", flags).is_left
    # What is there is opened as by root.
    assert not call_open(caller, tmp_path / "mkdirat", os.O_DIRECTORY | os.O_NOCTTY).is_left
    assert not call_open(caller, PLAIN, os.O_RDONLY | os.O_NOCTTY).is_left


def test_emulated_device_nodes_are_left(caller: Caller, tmp_path: Path) -> None:
    make_whiteout(tmp_path / "node")
    (tmp_path / "link").symlink_to("node")
    for name in ("node", "link"):
        for flags in (os.O_CREAT, os.O_RDWR, os.O_NOCTTY, os.O_TRUNC | os.O_WRONLY):
            assert call_open(caller, tmp_path / name, flags).is_left
        assert not call_open(caller, tmp_path / name, O_PATH | os.O_CREAT).is_left
        assert not call_open(caller, tmp_path / name, os.O_DIRECTORY).is_left


def test_what_is_in_a_procfs_is_left(caller: Caller) -> None:
    for path in (b"/proc/self/status", b"/proc/1/limits", b"/proc/self/absent", b"/proc/self/fd/0"):
        for flags in (os.O_NOCTTY, os.O_RDWR, os.O_CREAT, os.O_CREAT | os.O_EXCL):
            assert call_open(caller, path, flags).is_left
    assert call_make(caller, "mkdirat", b"/proc/new").is_left


def test_a_symlink_that_leads_nowhere_is_left(caller: Caller, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("absent")
    assert is_passed(call_open(caller, tmp_path / "link", os.O_RDWR), errno.ENOENT)
    assert call_open(caller, tmp_path / "link", os.O_CREAT).is_left
    exclusive = os.O_CREAT | os.O_EXCL
    assert is_passed(call_open(caller, tmp_path / "link", exclusive), errno.EEXIST)


def test_files_without_a_name_are_left(caller: Caller, tmp_path: Path) -> None:
    assert call_open(caller, tmp_path, O_TMPFILE | os.O_RDWR).is_left


# Whatever comes.


def test_whatever_a_caller_says_the_loop_goes_on(caller: Caller, recorded: bytes) -> None:
    os.symlink("absent", recorded + b"-link")
    descriptors = os.listdir("/proc/self/fd")
    numbers = random.Random(8)
    names = [*BY_PATH, *OPENING, *MAKING, "fstat", "statx", "getuid", "getegid"]
    # What is let through is done.
    paths = [
        recorded,
        recorded + b"/x",
        recorded + b"-fifo",
        b"",
        b"x" * 300,
        b"/proc/self/comm",
        b"../" * 60,
    ]
    addresses = [0, 1, 4095, 1 << 47, (1 << 47) - 1, 1 << 63, (1 << 64) - 1, caller.buffer]
    for _ in range(3000):
        path = numbers.choice(paths)
        text = caller.text(path, numbers.choice([0, mmap.PAGESIZE - 10, mmap.PAGESIZE - 1]))
        values = [*addresses, text, text, text, AT_FDCWD, os.O_NOCTTY, numbers.getrandbits(64)]
        caller.call(numbers.choice(names), *numbers.choices(values, k=5))
    assert owner(call_stat(caller, recorded)) == (5, 6)
    assert len(os.listdir("/proc/self/fd")) <= len(descriptors)


class _Record(ctypes.Structure):
    _fields_ = [
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("device", ctypes.c_uint64),
    ]


_decode = silent_function("decode_record", loop._LIBRARY)


def decode_in_c(message: bytes) -> Record | None:
    found = _Record()
    size = ctypes.c_size_t(len(message))
    if not _decode(message, size, c_void_p(ctypes.addressof(found))) & 0xFF:
        return None
    return Record(found.uid, found.gid, found.type, found.device)


records = st.builds(
    Record,
    st.integers(0, 0xFFFFFFFE),
    st.integers(0, 0xFFFFFFFE),
    st.sampled_from([0, stat.S_IFCHR, stat.S_IFBLK]),
    st.integers(0, (1 << 63) - 1),
)


@given(records)
def test_records_are_decoded_as_they_are_encoded(record: Record) -> None:
    assert decode_in_c(encode(record)) == record


USUAL = b"\x08\x10\xc8\x3e\xd0\xff\x7f\x01\x80\x05"


@given(
    st.one_of(
        st.binary(max_size=40),
        st.lists(
            st.sampled_from([8, 16, 0xC8, 0x3E, 0xD0, 0xFF, 0x7F, 1, 0x80, 5]), max_size=40
        ).map(bytes),
    )
)
@example(b"\x08\xff\xff\xff\xff\x0f")
@example(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\xc8\x3e\x80\x80\x80\x80\x10")
@example(b"\x88\x80\x80\x80\x80\x80\x80\x80\x80\x02\x05")
def test_what_is_decoded_in_c_is_what_python_says(message: bytes) -> None:
    found = decode_in_c(message)
    try:
        expected = decode(message)
    except ValueError:
        assert found is None
        return
    if found is None:
        # For Python to decide: other types of fields, and numbers that no record has.
        return
    assert found == expected


@AS_ROOT
@pytest.mark.parametrize("name", OPENING)
def test_who_opens_a_new_terminal_is_noted(caller: Caller, name: str) -> None:
    for path, is_left in ((b"/dev/ptmx", True), (b"/dev/pts/ptmx", True), (b"/dev/null", False)):
        first = [AT_FDCWD] if name == "openat" else []
        outcome = caller.call(name, *first, caller.text(path), os.O_RDWR | os.O_NOCTTY)
        assert outcome.is_left is is_left, path
