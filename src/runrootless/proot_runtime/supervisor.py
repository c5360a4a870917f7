"""The process beside a PRoot: its parent, and of all that it leaves behind.

It does for a container what a pid namespace would: when the first process ends, the others
are killed.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import termios
from fcntl import ioctl

from runrootless.errors import Error
from runrootless.linux.limits import set_soft_limit
from runrootless.linux.process import become_subreaper, set_parent_death_signal
from runrootless.proot.filter import refuse_untranslated_calls
from runrootless.proot.tracees import children_of, descendants, first_tracee

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Nothing tells that PRoot has started its command: it is looked for, so that it does not end
# unseen; nor that a killed process is gone.
_LOOKING_MILLISECONDS, _MILLISECONDS = 1, 20
_COMMAND_NOT_EXECUTED = 127


class Job:
    """What is to run: the ``words``, and the ``process`` object of the spec for the rest.

    ``terminal`` is the slave of a pseudo-terminal, or -1; ``start`` the FIFO to wait at before
    anything is executed, or empty; ``preserved`` how many descriptors above 2 are passed on.
    """

    __slots__ = ("preserved", "process", "start", "terminal", "words")

    def __init__(
        self,
        words: list[str],
        process: dict[str, Any],
        terminal: int = -1,
        start: str = "",
        preserved: int = 0,
    ) -> None:
        self.words = words
        self.process = process
        self.terminal = terminal
        self.start = start
        self.preserved = preserved


class Supervised:
    """A job under way: the ``pid`` of PRoot, and ``outcome``, a pipe that tells its exit code."""

    __slots__ = ("outcome", "pid")

    def __init__(self, pid: int, outcome: int) -> None:
        self.pid = pid
        self.outcome = outcome

    def wait(self) -> int:
        """Return the exit code when all is over; 255 if the supervisor was killed."""
        text = b""
        while block := os.read(self.outcome, 64):
            text += block
        return int(text) if text else 255


def supervise(
    job: Job, lock: int, ready: Callable[[int], object], companion: int | None = None
) -> Supervised:
    """Start a job under a supervisor in the background.

    ``lock`` is a descriptor that is held open as long as it goes on, -1 for none.  ``ready`` is
    called in the supervisor with the pid of PRoot, before this returns.  ``companion`` is a
    process at whose end the job ends too.

    Raises Error if it cannot be started.
    """
    outcome_read, outcome_write = os.pipe()
    report_read, report_write = os.pipe()
    sys.stdout.flush()
    if os.fork() == 0:
        try:
            os.close(outcome_read)
            os.close(report_read)
            _Supervisor(job, lock, outcome_write, companion).run(ready, report_write)
        except BaseException as error:
            # The parent reads it; when it has gone on there is nobody to tell.
            os.write(report_write, f"E{error}".encode())
        finally:
            os._exit(0)
    os.close(outcome_write)
    os.close(report_write)
    with open(report_read, "rb") as file:
        report = file.read()
    if not report[:1].isdigit():
        raise Error(f"cannot start the container: {report[1:].decode() or 'the supervisor died'}")
    return Supervised(int(report), outcome_read)


class _Supervisor:
    def __init__(self, job: Job, lock: int, outcome: int, companion: int | None) -> None:
        self.job = job
        self.kept = {outcome, lock}
        self.outcome = outcome
        self.companion = companion

    def run(self, ready: Callable[[int], object], report: int) -> None:
        os.setsid()
        become_subreaper()
        executed_read, executed_write = os.pipe()
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            # It may wait for long before it executes anything, which would close it.
            os.close(report)
            _become(self.job, supervisor)
        os.close(executed_write)
        ready(pid)
        os.write(report, b"%d" % pid)
        self._let_go({*self.kept, executed_read})
        code = self._wait(pid, executed_read)
        self._end_all()
        os.write(self.outcome, b"%d" % code)

    def _let_go(self, kept: set[int]) -> None:
        # A process that waits for the end of the container's output must not wait for this one.
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in kept:
                try:
                    os.close(int(name))
                except OSError:
                    # That of the listing itself.
                    pass
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        # The process that waited for the outcome may be gone.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _wait(self, proot: int, executed: int) -> int:
        """Return the exit code of PRoot; what its first process leaves is killed meanwhile."""
        poll = select.poll()
        proot_fd = os.pidfd_open(proot)
        poll.register(proot_fd, select.POLLIN)
        poll.register(executed, 0)
        if self.companion is not None:
            poll.register(os.pidfd_open(self.companion), select.POLLIN)
        command_fd: int | None = None
        looking = ended = False
        while True:
            pause = _LOOKING_MILLISECONDS if looking else _MILLISECONDS if ended else None
            events = dict(poll.poll(pause))
            if proot_fd in events:
                return _exit_code(os.waitpid(proot, 0)[1])
            if executed in events:
                poll.unregister(executed)
                looking = True
            if command_fd is not None and command_fd in events:
                poll.unregister(command_fd)
                command_fd, ended = None, True
            elif events and executed not in events and not ended:
                # The companion.
                os.kill(proot, signal.SIGKILL)
                self._end_all(but=proot)
            if looking:
                command = first_tracee(proot)
                if command is not None:
                    looking = False
                    try:
                        command_fd = os.pidfd_open(command)
                        poll.register(command_fd, select.POLLIN)
                    except OSError:
                        ended = True
                elif _orphans(proot):
                    # It was too quick for us.
                    looking, ended = False, True
            if ended:
                _kill(pid for pid in descendants(os.getpid()) if pid != proot)

    def _end_all(self, but: int = 0) -> None:
        """Kill all that has this process for its parent by now, until nothing is left."""
        while True:
            left = [pid for pid in descendants(os.getpid()) if pid != but]
            _kill(left)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            if but:
                return
            select.select([], [], [], _MILLISECONDS / 1000)


def _orphans(proot: int) -> bool:
    """Return whether this process has inherited some that descend from ``proot``."""
    return any(pid != proot for pid in children_of(os.getpid()))


def _kill(pids: Any) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _become(job: Job, supervisor: int) -> None:
    """Become PRoot, in the process that was forked for it; does not return."""
    try:
        os.setsid()
        for number in range(1, signal.NSIG):
            if signal.getsignal(number) is not None and number not in _UNCATCHABLE:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # At this one PRoot kills what it traces; at SIGKILL it would leave that behind. It was
        # ignored until now, perhaps, and is not sent to whose parent has ended already.
        set_parent_death_signal(signal.SIGQUIT)
        if os.getppid() != supervisor:
            return
        if job.terminal >= 0:
            ioctl(job.terminal, termios.TIOCSCTTY, 0)
            for descriptor in (0, 1, 2):
                os.dup2(job.terminal, descriptor)
        _keep_descriptors(job.preserved)
        _apply(job.process)
        if job.start:
            os.close(os.open(job.start, os.O_RDONLY))
        refuse_untranslated_calls()
        environment = dict(
            entry.partition("=")[::2] for entry in job.process.get("env") or () if "=" in entry
        )
        os.execve(job.words[0], job.words, environment)
    except BaseException as error:
        os.write(2, f"runrootless: cannot execute {job.words[0]}: {error}\n".encode())
    finally:
        os._exit(_COMMAND_NOT_EXECUTED)


_UNCATCHABLE = (signal.SIGKILL, signal.SIGSTOP)


def _keep_descriptors(preserved: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2:
            try:
                os.set_inheritable(descriptor, descriptor < 3 + preserved)
            except OSError:
                # That of the listing itself.
                pass


def _apply(process: dict[str, Any]) -> None:
    user = process.get("user") or {}
    os.umask(user.get("umask", 0o022))
    for limit in process.get("rlimits") or ():
        number = getattr(resource, limit.get("type", ""), None)
        if number is not None:
            set_soft_limit(0, number, limit["soft"], limit["hard"])
    adjustment = process.get("oomScoreAdj")
    if adjustment is not None:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(adjustment))
