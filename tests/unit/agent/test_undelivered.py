"""Calls that are interrupted after all has been done, on kernels that let that happen.

The caller is a process under a filter, and this one answers it: at the moment when it is to get
its answer it is sent a signal.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runrootless.agent.answers import Answers
from runrootless.agent.ledger import INTERRUPTED, Ledger
from runrootless.agent.log import Log
from runrootless.agent.views import Views
from runrootless.emulation.call import Call
from runrootless.emulation.callers.credential_table import INFINITY, CredentialTable
from runrootless.emulation.callers.credentials import initial
from runrootless.emulation.repetition import IDEMPOTENT, KEPT, ONCE, REMEMBERED, UNDONE
from runrootless.emulation.table import rows
from runrootless.linux import bpf, seccomp
from runrootless.linux.libc import address
from runrootless.linux.limits import RLIMIT_RTTIME, set_soft_limit
from runrootless.linux.process import set_no_new_privileges
from runrootless.linux.seccomp import AUDIT_ARCHITECTURES
from runrootless.linux.syscall_numbers import NUMBERS
from support.emulators import new_emulator

MACHINE = os.uname().machine
ROOT, USER = (0, 0), (5, 6)
ATTRIBUTE = b"trusted.t"
RTTIME = 15
# What callers are passed the addresses of: they are forked, so all have it where it is.
KEPT_ALIVE: list[object] = []


def test_each_call_is_in_one_class() -> None:
    classes = (UNDONE, REMEMBERED, KEPT, IDEMPOTENT)
    names = {name for machine in AUDIT_ARCHITECTURES for name, _, _ in rows(machine, fast=True)}
    assert sorted(name for group in classes for name in group) == sorted(names)
    # The kernel does these, if it is let to.
    assert {"bind", "sendmsg", "sendmmsg"} == ONCE & IDEMPOTENT


# SECCOMP_IOCTL_NOTIF_RECV, <linux/seccomp.h>.
RECEIVE = 0xC0502100


class SignalledCall(Call):
    """A call whose caller gets a signal before its answer."""

    def answer(self, value: int | None) -> bool:
        self._interrupt()
        return super().answer(value)

    def answer_with_fd(self, fd: int, close_on_exec: int) -> None:
        self._interrupt()
        super().answer_with_fd(fd, close_on_exec)

    def _interrupt(self) -> None:
        os.kill(self.pid, signal.SIGUSR1)
        while self.is_valid():
            os.sched_yield()


class Caller:
    """A process that makes one call, which is intercepted, as often as it is told to.

    With ``restarts`` its signal handler has SA_RESTART, and ``user`` is whom it is to be.
    """

    def __init__(
        self, name: str, arguments: list[int], restarts: bool, user: tuple[int, int]
    ) -> None:
        self._number = NUMBERS[MACHINE][name]
        self._ours, theirs = socket.socketpair()
        ledger = Ledger()
        ledger.turn(0)
        slot = ledger.take(1)
        assert slot is not None
        self._slot, self.header = slot, ledger.header
        log = Log(-1, "text", False)
        self._credentials = os.memfd_create("credentials")
        emulator = new_emulator(credentials=self._credentials)
        self._answers = Answers(emulator, Views(-1, ledger.header), ledger, log, lambda: None)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._serve(theirs, arguments, restarts)
            finally:
                os._exit(1)
        theirs.close()
        _, (self._listener,), _, _ = socket.recv_fds(self._ours, 1, 1)
        number = CredentialTable(-1).encode(initial(*user))
        set_soft_limit(self.pid, RLIMIT_RTTIME, number, INFINITY)

    def _serve(self, theirs: socket.socket, arguments: list[int], restarts: bool) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.siginterrupt(signal.SIGUSR1, not restarts)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
        words = [ctypes.c_long(one) for one in arguments]
        set_no_new_privileges()
        program = bpf.load(bpf.NUMBER) + bpf.if_equal(self._number, 0, 1)
        program += bpf.finish(seccomp.RETURN_NOTIFY) + bpf.finish(seccomp.RETURN_ALLOW)
        listener = seccomp.install(program, seccomp.FILTER_NEW_LISTENER)
        socket.send_fds(theirs, [b"."], [listener])
        os.close(listener)
        while theirs.recv(1) == b".":
            result = libc.syscall(ctypes.c_long(self._number), *words)
            theirs.send(b"%d" % (-ctypes.get_errno() if result == -1 else result))
        os._exit(0)

    def begin(self) -> None:
        """Have it make the call."""
        self._ours.send(b".")

    def handle(self, kind: type[Call] = Call) -> None:
        """Answer the call that it makes, or that the kernel makes once more."""
        notification = bytearray(seccomp.NOTIFICATION_SIZE)
        fcntl.ioctl(self._listener, RECEIVE, notification)
        call = kind(bytes(notification), self._listener)
        _, key = seccomp.KEY.unpack(notification)
        value = self._answers.handle(None, self._slot, 1, key, call)  # type: ignore[arg-type]
        if value != Call.ANSWERED and not call.answer(value):
            self._answers.undelivered.note(call, value)

    def result(self) -> int:
        """Return what the call returns, a negative error number included."""
        return int(self._ours.recv(100))

    def close(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._ours.close()
        os.close(self._listener)
        os.close(self._credentials)


def at(data: bytes) -> int:
    """Return the address of bytes that stay there."""
    buffer = ctypes.create_string_buffer(data)
    KEPT_ALIVE.append(buffer)
    return ctypes.addressof(buffer)


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Caller]]:
    """Make callers; the agent's paths begin at /proc."""
    monkeypatch.chdir("/proc")
    made = []

    def make(name: str, arguments: list[int], restarts: bool, user: tuple[int, int]) -> Caller:
        if name not in NUMBERS[MACHINE]:
            pytest.skip(f"{MACHINE} has no {name}")
        made.append(Caller(name, arguments, restarts, user))
        return made[-1]

    yield make
    for one in made:
        one.close()


HERE = -100
EXCLUSIVE = os.O_CREAT | os.O_EXCL | os.O_RDWR
HOW = struct.pack("QQQ", EXCLUSIVE, 0o600, 0)

MAKING: dict[str, Callable[[int], list[int]]] = {
    "mkdir": lambda path: [path, 0o700],
    "mkdirat": lambda path: [HERE, path, 0o700],
    "mknod": lambda path: [path, stat.S_IFIFO | 0o600, 0],
    "mknodat": lambda path: [HERE, path, stat.S_IFREG | 0o600, 0],
    "symlink": lambda path: [at(b"to"), path],
    "symlinkat": lambda path: [at(b"to"), HERE, path],
    "open": lambda path: [path, EXCLUSIVE, 0o600],
    "openat": lambda path: [HERE, path, EXCLUSIVE, 0o600],
    "openat2": lambda path: [HERE, path, at(HOW), len(HOW)],
    "creat": lambda path: [path, 0o600],
}


@pytest.mark.parametrize("name", MAKING)
def test_files_are_made_once(name: str, caller: Callable[..., Caller], tmp_path: Path) -> None:
    path = tmp_path / "new"
    repeating = caller(name, MAKING[name](at(bytes(path))), True, USER)
    repeating.begin()
    repeating.handle(SignalledCall)
    assert not os.path.lexists(path)
    repeating.handle()
    assert repeating.result() >= 0
    assert os.path.lexists(path)


@pytest.mark.parametrize("name", MAKING)
def test_no_file_is_made_by_a_call_that_is_interrupted(
    name: str, caller: Callable[..., Caller], tmp_path: Path
) -> None:
    path = tmp_path / "new"
    interrupted = caller(name, MAKING[name](at(bytes(path))), False, USER)
    interrupted.begin()
    interrupted.handle(SignalledCall)
    assert interrupted.result() == -errno.EINTR
    assert not os.path.lexists(path)


def test_what_somebody_else_has_put_in_its_place_stays(
    caller: Callable[..., Caller], tmp_path: Path
) -> None:
    path = tmp_path / "new"

    class Replaced(SignalledCall):
        def answer(self, value: int | None) -> bool:
            (tmp_path / "other").mkdir()
            (tmp_path / "other").rename(path)
            return super().answer(value)

    interrupted = caller("mkdir", MAKING["mkdir"](at(bytes(path))), False, USER)
    interrupted.begin()
    interrupted.handle(Replaced)
    assert interrupted.result() == -errno.EINTR
    assert path.is_dir()


ARGUMENTS = struct.pack("QII", at(b"value"), 5, os.XATTR_CREATE)
SETTING: dict[str, Callable[[int, int], list[int]]] = {
    "setxattr": lambda path, fd: [path, at(ATTRIBUTE), at(b"value"), 5, os.XATTR_CREATE],
    "lsetxattr": lambda path, fd: [path, at(ATTRIBUTE), at(b"value"), 5, os.XATTR_CREATE],
    "fsetxattr": lambda path, fd: [fd, at(ATTRIBUTE), at(b"value"), 5, os.XATTR_CREATE],
    "setxattrat": lambda path, fd: [HERE, path, 0, at(ATTRIBUTE), at(ARGUMENTS), 16],
}
REMOVING: dict[str, Callable[[int, int], list[int]]] = {
    "removexattr": lambda path, fd: [path, at(ATTRIBUTE)],
    "lremovexattr": lambda path, fd: [path, at(ATTRIBUTE)],
    "fremovexattr": lambda path, fd: [fd, at(ATTRIBUTE)],
    "removexattrat": lambda path, fd: [HERE, path, 0, at(ATTRIBUTE)],
}
KEPT_NAME = b"user.runrootless." + ATTRIBUTE


@pytest.mark.parametrize("name", [*SETTING, *REMOVING])
@pytest.mark.parametrize("restarts", [False, True])
def test_attributes_are_made_and_removed_once(
    name: str, restarts: bool, caller: Callable[..., Caller], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.touch()
    before = {} if name in SETTING else {KEPT_NAME: b"value"}
    after = {KEPT_NAME: b"value"} if name in SETTING else {}
    for key, value in before.items():
        os.setxattr(path, key, value)

    def there() -> dict[bytes, bytes]:
        return {KEPT_NAME: os.getxattr(path, KEPT_NAME)} if os.listxattr(path) else {}

    with path.open() as file:
        make = (SETTING | REMOVING)[name]
        one = caller(name, make(at(bytes(path)), file.fileno()), restarts, ROOT)
        one.begin()
        one.handle(SignalledCall)
        assert there() == before
        if restarts:
            one.handle()
        assert one.result() == (0 if restarts else -errno.EINTR)
        assert there() == (after if restarts else before)


def test_the_limit_before_is_told(caller: Callable[..., Caller]) -> None:
    old = mmap.mmap(-1, 16)
    new = at(struct.pack("QQ", 1000, 2000))
    arguments = [0, RTTIME, new, address(old)]
    one = caller("prlimit64", arguments, True, ROOT)
    for expected in ((INFINITY, INFINITY), (1000, 2000)):
        one.begin()
        one.handle(SignalledCall)
        one.handle()
        assert one.result() == 0
        assert struct.unpack("QQ", old[:]) == expected
        # To raise it takes a capability, which root has.
        assert one.header[INTERRUPTED] == 0


def test_an_answer_is_remembered_for_the_same_call(caller: Callable[..., Caller]) -> None:
    one = caller("setfsuid", [7], True, ROOT)
    one.begin()
    one.handle(SignalledCall)
    assert one.header[INTERRUPTED] == 1
    one.handle()
    assert one.result() == 0
    assert one.header[INTERRUPTED] == 0
    # And for that alone.
    one.begin()
    one.handle()
    assert one.result() == 7


def test_an_answer_is_forgotten_in_the_end(
    caller: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = caller("setfsuid", [7], False, ROOT)
    one.begin()
    one.handle(SignalledCall)
    assert one.result() == -errno.EINTR
    later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    one.begin()
    one.handle()
    assert one.result() == 7
