"""The user without privileges that containers are run as."""

import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

from support.namespaces import MountNamespace
from support.processes import Output, Process, Result, Terminal, eventually, processes

AS_ROOT = os.geteuid() == 0

RUNTIMES = ("runc", "crun")

# What a login gives, and nothing of the environment that the tests run in.
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Account:
    """A user that may do nothing special, and has no subordinate IDs.

    Where the tests are root this is a system user of their own, for which
    ``useradd --system`` enters nothing in /etc/subuid and /etc/subgid; elsewhere
    it is whoever runs the tests. That there is no such entry is checked.
    """

    name: str
    uid: int
    gid: int
    lock: IO[str] | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def find() -> "Account":
        """Return the account to test with, making it if need be."""
        account = Account._reserve() if AS_ROOT else Account._of(pwd.getpwuid(os.getuid()))
        for path in ("/etc/subuid", "/etc/subgid"):
            with open(path) if os.path.exists(path) else open(os.devnull) as file:
                owners = [line.split(":")[0] for line in file]
            if account.name in owners or str(account.uid) in owners:
                raise RuntimeError(f"{account.name} has subordinate IDs in {path}")
        return account

    @staticmethod
    def _of(entry: pwd.struct_passwd, lock: IO[str] | None = None) -> "Account":
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, lock)

    @staticmethod
    def _reserve() -> "Account":
        """Take a user that no other run of the tests has: each counts its user's processes."""
        for number in range(1, 100):
            name = "runrootless-test" + (f"-{number}" if number > 1 else "")
            lock = open(f"/run/lock/{name}", "w")  # noqa: SIM115
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                # buildah looks into the home that /etc/passwd names, whatever HOME says.
                home = f"/var/lib/{name}"
                command = ["useradd", "--system", "--user-group", "--home-dir", home]
                subprocess.run([*command, "--shell", "/bin/sh", name], check=True)
                entry = pwd.getpwnam(name)
                os.makedirs(f"{home}/.config", exist_ok=True)
                for path in (home, f"{home}/.config"):
                    os.chown(path, entry.pw_uid, entry.pw_gid)
            account = Account._of(entry, lock)
            # Left by a run that was broken off.
            account.kill_all()
            return account
        raise RuntimeError("99 other runs of these tests are under way")

    def processes(self) -> list[Process]:
        """Return this user's processes."""
        return [process for process in processes() if process.uid == self.uid]

    def kill_all(self) -> None:
        """End all of this user's processes. Never done to a user who is not the tests' own."""
        if not AS_ROOT:
            return

        def none_left() -> bool:
            for process in self.processes():
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            return not self.processes()

        eventually(none_left, f"the end of {self.name}'s processes")


# Far from where useradd begins to hand out such ranges.
_FIRST_SUBORDINATE = 0x30000000
SUBORDINATE_RANGES = ((_FIRST_SUBORDINATE, 30000), (_FIRST_SUBORDINATE + 100000, 35536))


@contextmanager
def subordinate_account(beside: Account) -> Iterator[Account]:
    """Make a user with subordinate IDs, and remove it in the end. For real root only.

    It is named after the account ``beside``, which no other run of the tests has.
    """
    name = f"{beside.name}-sub"

    def remove() -> None:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return
        Account._of(entry).kill_all()
        # Of the ranges as well.
        subprocess.run(["userdel", name], check=True, capture_output=True)

    # Left by a run that was broken off.
    remove()
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/bin/sh"]
    subprocess.run([*command, name], check=True)
    try:
        for first, count in SUBORDINATE_RANGES:
            numbers = f"{first}-{first + count - 1}"
            ranges = ["--add-subuids", numbers, "--add-subgids", numbers]
            subprocess.run(["usermod", *ranges, name], check=True)
        yield Account._of(pwd.getpwnam(name))
    finally:
        remove()


class Unprivileged:
    """Runs commands as a user without privileges, in a login session of its own.

    The session has its own HOME and XDG_RUNTIME_DIR, and nothing of the
    environment of the tests. Where the tests are root the privileges are given
    up for good: user, group and all supplementary groups change. With a
    ``namespace`` it is in there.
    """

    def __init__(self, account: Account, namespace: MountNamespace | None = None) -> None:
        self.account = account
        self._namespace = namespace
        # Short, as sockets are made in it, and outside what only root may enter.
        self.session = tempfile.mkdtemp(prefix="rr-", dir="/tmp")
        self.home = os.path.join(self.session, "home")
        self.runtime_dir = os.path.join(self.session, "run")
        # Where the command keeps its state without XDG_RUNTIME_DIR.
        self.fallback_dir = f"/tmp/runrootless-{account.uid}"
        os.chmod(self.session, 0o755)
        for path in (self.home, self.runtime_dir):
            os.mkdir(path, 0o700)
            self.give(path)
        self.env = {
            "HOME": self.home,
            "LANG": "C.UTF-8",
            "LOGNAME": account.name,
            "PATH": PATH,
            "SHELL": "/bin/sh",
            "TERM": "xterm",
            "USER": account.name,
            "XDG_RUNTIME_DIR": self.runtime_dir,
        }

    def give(self, path: str) -> None:
        """Make the user the owner of a file of the tests."""
        if AS_ROOT:
            os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)

    @property
    def _user(self) -> tuple[int, int] | None:
        """Whom root has to become before it executes a command of ``_command``."""
        if not AS_ROOT or self._namespace is not None:
            return None
        return (self.account.uid, self.account.gid)

    def _command(self, args: Sequence[str], cwd: str) -> list[str]:
        if self._namespace is None:
            return list(args)
        return self._namespace.enter(self.account.uid, self.account.gid, cwd, args)

    def start(
        self,
        args: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | None = None,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
        before: Callable[[], None] | None = None,
    ) -> "subprocess.Popen[str]":
        """Start a command as the leader of a session of its own."""
        user = self._user
        cwd = cwd or self.home
        return subprocess.Popen(
            self._command(args, cwd),
            cwd=cwd,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=before,
            user=user and user[0],
            group=user and user[1],
            extra_groups=user and [],
            umask=0o022,
        )

    def run(
        self,
        args: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        stdin: int | None = None,
        timeout: float = 120,
    ) -> Result:
        """Run a command to its end, or kill it when it takes longer than ``timeout`` seconds."""
        # Into files: a container that goes on in the background holds what it writes to.
        with tempfile.TemporaryFile() as typed, Output() as output:
            typed.write((input or "").encode())
            typed.seek(0)
            if AS_ROOT:
                # As where a user's shell redirects.
                for file in (typed, output.stdout, output.stderr):
                    os.fchown(file.fileno(), self.account.uid, self.account.gid)
            process = self.start(
                args,
                cwd=cwd,
                env=env,
                stdin=typed.fileno() if stdin is None else stdin,
                stdout=output.stdout.fileno(),
                stderr=output.stderr.fileno(),
            )
            return output.finish(process, timeout)

    def terminal(
        self, args: Sequence[str], *, cwd: str | None = None, rows: int = 24, columns: int = 80
    ) -> Terminal:
        """Start a command at a terminal."""
        cwd = cwd or self.home
        return Terminal(
            self._command(args, cwd),
            cwd=cwd,
            env=self.env,
            user=self._user,
            owner=(self.account.uid, self.account.gid) if AS_ROOT else None,
            rows=rows,
            columns=columns,
        )

    def leftovers(self) -> list[str]:
        """Return what is there of containers that should be gone: processes and directories."""
        found = []
        kept = (*RUNTIMES, ".cache", ".empty-directory")
        for process in self.account.processes():
            # Somebody's own account has other things to do as well.
            if AS_ROOT or "runrootless" in process.command:
                found.append(f"process {process.pid} ({process.state}): {process.command}")
        for directory in (
            os.path.join(self.runtime_dir, "runrootless"),
            *(os.path.join(self.runtime_dir, name) for name in RUNTIMES),
            *(os.path.join(self.fallback_dir, name) for name in RUNTIMES),
            self.fallback_dir,
        ):
            if os.path.isdir(directory):
                names = os.listdir(directory)
                # The runtimes' own directories stay, when they are empty, and crun's of filters.
                found += [os.path.join(directory, name) for name in names if name not in kept]
        return found

    def close(self) -> None:
        """End the session: what still runs is ended, what it kept is removed."""
        self.account.kill_all()
        if AS_ROOT:
            shutil.rmtree(self.fallback_dir, ignore_errors=True)
        shutil.rmtree(self.session, ignore_errors=True)
