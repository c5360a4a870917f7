"""Running commands, waiting for what must happen, and finding what was left behind."""

import errno
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """What a command did."""

    args: Sequence[str]
    returncode: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool = False

    def __str__(self) -> str:
        return (
            f"{' '.join(self.args)}\nexit code {self.returncode} after {self.seconds:.1f} s"
            f"{', killed as it took too long' if self.timed_out else ''}\n"
            f"--- stdout\n{self.stdout[-6000:]}\n--- stderr\n{self.stderr[-6000:]}"
        )

    def check(self, returncode: int = 0) -> "Result":
        """Fail the test, showing all there is to see, unless the exit code is this one."""
        assert self.returncode == returncode, f"expected exit code {returncode}:\n{self}"
        return self


class Output:
    """Takes in what a command prints, and waits for its end."""

    def __enter__(self) -> "Output":
        self.stdout = tempfile.TemporaryFile()
        self.stderr = tempfile.TemporaryFile()
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.stderr.close()

    def finish(self, process: "subprocess.Popen[str]", timeout: float) -> Result:
        """Wait for the process, which leads a session; kill it when it takes too long."""
        began = time.monotonic()
        timed_out = False
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            timed_out = True
        texts = []
        for file in (self.stdout, self.stderr):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        assert isinstance(process.args, list)
        seconds = time.monotonic() - began
        stdout, stderr = texts
        return Result(process.args, process.returncode, stdout, stderr, seconds, timed_out)


def eventually(condition: Callable[[], T], what: str | Callable[[], str], timeout: float = 60) -> T:
    """Poll until the condition is true, and return what it returned.

    For what happens soon but at no moment that can be waited for. It fails the
    test when the time is over.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            description = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {timeout:g} s: {description}")
        time.sleep(0.01)


def read_line(process: "subprocess.Popen[str]", timeout: float = 60) -> str:
    """Return the next line that a process prints, of which nothing has been read before."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout)
    assert ready, f"{process.args!r} printed nothing for {timeout:g} s"
    return process.stdout.readline()


@dataclass(frozen=True)
class Process:
    """A process as /proc shows it."""

    pid: int
    uid: int
    state: str
    command: str


def processes() -> list[Process]:
    """Return all processes that /proc shows, without the zombies."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/status") as file:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
            with open(f"/proc/{name}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if status["State"].startswith("Z"):
            continue
        uid = int(status["Uid"].split()[0])
        found.append(Process(int(name), uid, status["State"], command or f"[{status['Name']}]"))
    return found


class Terminal:
    """A command whose standard streams and controlling terminal are a pty.

    ``expect`` waits for output, ``send`` types.
    """

    def __init__(
        self,
        args: Sequence[str],
        *,
        cwd: str,
        env: dict[str, str],
        user: tuple[int, int] | None,
        owner: tuple[int, int] | None,
        rows: int = 24,
        columns: int = 80,
    ) -> None:
        self.output = ""
        self._seen = 0
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self.initial_attributes = self.attributes()
        if owner is not None:
            # As a login would: who owns the terminal may open it.
            os.fchown(slave, *owner)

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            list(args),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env=env,
            start_new_session=True,
            preexec_fn=take_terminal,
            user=user and user[0],
            group=user and user[1],
            extra_groups=user and [],
        )
        os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window, as a terminal emulator does."""
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def send(self, text: str) -> None:
        """Type the text."""
        os.write(self._master, text.encode())

    def _read(self, timeout: float) -> bool:
        """Take in some output; false when there will be no more."""
        ready, _, _ = select.select([self._master], [], [], timeout)
        if not ready:
            return True
        try:
            block = os.read(self._master, 65536)
        except OSError as error:
            # What Linux says on a pty whose other side has been closed.
            if error.errno != errno.EIO:
                raise
            return False
        self.output += block.decode(errors="replace")
        return bool(block)

    def expect(self, text: str, timeout: float = 60) -> None:
        """Wait until the text appears in what was printed since the last call."""
        deadline = time.monotonic() + timeout
        while text not in self.output[self._seen :]:
            more = self._read(max(0.0, min(0.5, deadline - time.monotonic())))
            if text in self.output[self._seen :]:
                break
            assert more and time.monotonic() < deadline, (
                f"{text!r} did not appear in {self.output[self._seen :]!r}"
            )
        self._seen = self.output.index(text, self._seen) + len(text)

    def answer(self, command: str, prompt: str) -> str:
        """Type a command for a shell, and return what is printed until its next prompt."""
        before = len(self.output)
        self.send(f"{command}\n")
        self.expect(prompt)
        return self.output[before:]

    def wait(self, timeout: float = 60) -> int:
        """Wait until the command ends, and return its exit code."""
        deadline = time.monotonic() + timeout
        while self._read(0.1):
            if self.process.poll() is not None and not select.select([self._master], [], [], 0)[0]:
                break
            assert time.monotonic() < deadline, f"it goes on: {self.output!r}"
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def attributes(self) -> list[object]:
        """Return the terminal's settings, to see whether they were put back."""
        return list(termios.tcgetattr(self._master))

    def close(self) -> None:
        """Hang up, and end the command should it go on."""
        os.close(self._master)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
