"""``run``, ``create``, ``start`` and ``exec`` of containers under PRoot alone."""

from __future__ import annotations

import os
import pwd
import signal
import tempfile
from datetime import datetime, timezone

from runrootless.bundle import accounts, json_file
from runrootless.bundle.host import HostFacts
from runrootless.bundle.spec import load
from runrootless.bundle.transform import transform
from runrootless.command_line import runc as command_line
from runrootless.command_line.process import process_from_file, process_from_flags
from runrootless.errors import Error
from runrootless.proot import command
from runrootless.proot.download import directory as data_directory
from runrootless.proot.provision import provide
from runrootless.proot.relay import PASSED_ON
from runrootless.proot.tracees import first_tracee
from runrootless.proot_runtime import console, container, plan
from runrootless.proot_runtime.supervisor import Job, Supervised, supervise
from runrootless.report import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runrootless.command_line.runc import Parsed
    from runrootless.invocation import Invocation
    from runrootless.proot_runtime.container import Container

_OCI_VERSION = "1.0.2"


def run(invocation: Invocation, parsed: Parsed, obstacle: str) -> int:
    """Do a ``run`` or ``create``; return the exit code.

    ``obstacle`` is what keeps user namespaces from the caller.  Raises Error for a bundle that
    cannot be run, and a container that exists.
    """
    foreground = invocation.command == "run" and not parsed.is_on("detach")
    bundle = os.path.abspath(parsed.get("bundle") or ".")
    spec = load(bundle)
    identity = transform(spec, bundle, HostFacts(), False)
    process = spec["process"]
    _check_console(process, parsed, foreground)
    words = plan.program_words(provide())
    made = container.make(parsed.arguments[0], invocation.state_root())
    try:
        lock = made.lock()
        temporary = _temporary(made)
        words += plan.root_options(spec, f"{made.path}/mounts")
        _add_home(process, spec["root"]["path"], identity.uid)
        process["env"] = command.with_environment(process["env"], temporary)
        json_file.write(f"{made.path}/{container.CONFIG}", spec)
        json_file.write(f"{made.path}/{container.WORDS}", words)
        _warn(invocation, spec, obstacle)
        start_path = ""
        if invocation.command == "create":
            start_path = made.start_path
            os.mkfifo(start_path, 0o600)
        job = Job(
            words + plan.process_options(process, identity),
            process,
            start=start_path,
            preserved=command_line.preserved(parsed),
        )

        def save(pid: int) -> None:
            made.save(
                ociVersion=spec.get("ociVersion", _OCI_VERSION),
                pid=pid,
                bundle=bundle,
                rootfs=spec["root"]["path"],
                created=datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
                **({"annotations": spec["annotations"]} if spec.get("annotations") else {}),
                owner=_user_name(),
                supervisor=os.getpid(),
            )

        code = _carry_out(job, lock, save, parsed, foreground)
    except BaseException:
        _discard(made)
        raise
    if foreground and not parsed.is_on("keep"):
        _discard(made)
    return code


def start(found: Container) -> int:
    """Let a created container go on. Raises Error if it is not one."""
    status = found.status()
    if status != "created":
        if status == "stopped":
            raise Error("cannot start a container that has stopped")
        raise Error("cannot start an already running container")
    try:
        os.close(os.open(found.start_path, os.O_WRONLY | os.O_NONBLOCK))
        os.unlink(found.start_path)
    except OSError as error:
        raise Error(f"cannot start the container {found.id}: {error.strerror}") from None
    return 0


def execute(invocation: Invocation, found: Container, parsed: Parsed) -> int:
    """Do an ``exec``: run another process under a PRoot of its own; return its exit code.

    Raises Error if the container does not run, for an unknown user and an unusable process file.
    """
    if found.status() != "running":
        raise Error(f"cannot exec in a {found.status()} container", 255)
    spec = json_file.read(f"{found.path}/{container.CONFIG}")
    environment = spec["process"]["env"]
    if parsed.get("process"):
        process, identity = process_from_file(parsed.get("process"))
    else:
        process, identity = process_from_flags(spec, parsed, parsed.arguments[1:])
    foreground = not parsed.is_on("detach")
    _check_console(process, parsed, foreground)
    _add_home(process, spec["root"]["path"], identity.uid)
    temporary = next(
        entry.partition("=")[2]
        for entry in reversed(environment)
        if entry.startswith(command.TEMPORARY + "=")
    )
    process["env"] = command.with_environment(process["env"], temporary)
    words = json_file.read(f"{found.path}/{container.WORDS}")
    job = Job(
        words + plan.process_options(process, identity),
        process,
        preserved=command_line.preserved(parsed),
    )
    supervisor: int = found.data["supervisor"]
    return _carry_out(job, -1, lambda pid: None, parsed, foreground, supervisor)


def _carry_out(
    job: Job,
    lock: int,
    ready: Callable[[int], object],
    parsed: Parsed,
    foreground: bool,
    companion: int | None = None,
) -> int:
    """Start a job, hand over its terminal and its pid, and wait for it if in the foreground."""
    master = -1
    if job.process.get("terminal"):
        master, job.terminal = os.openpty()
    started = supervise(job, lock, ready, companion)
    if lock >= 0:
        os.close(lock)
    if job.terminal >= 0:
        os.close(job.terminal)
    try:
        if parsed.get("pid-file"):
            _write_pid(parsed.get("pid-file"), started.pid)
        if master >= 0 and parsed.get("console-socket"):
            console.send(parsed.get("console-socket"), master)
            master = -1
    except BaseException:
        os.kill(started.pid, signal.SIGKILL)
        started.wait()
        raise
    return _attend(started, master) if foreground else 0


def _attend(started: Supervised, master: int) -> int:
    def pass_on(number: int, _: object) -> None:
        try:
            os.kill(first_tracee(started.pid) or started.pid, number)
        except ProcessLookupError:
            pass

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    if master >= 0:
        with console.Console(master) as joined:
            joined.relay()
    return started.wait()


def _check_console(process: dict[str, Any], parsed: Parsed, foreground: bool) -> None:
    """Raise Error as runc does for a terminal that nobody would hold."""
    terminal, given = process.get("terminal"), parsed.get("console-socket")
    if terminal and not foreground and not given:
        raise Error("cannot allocate tty if runc will detach without setting console socket")
    if given and (foreground or not terminal):
        raise Error("cannot use console socket if runc will not detach or allocate tty")
    if terminal and foreground:
        console.own_terminal()


def _temporary(made: Container) -> str:
    """Return a new directory for PRoot, which executes a file from it."""
    path = f"{made.path}/tmp"
    os.mkdir(path, 0o700)
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        # What is there instead is removed by way of this link.
        os.rmdir(path)
        os.makedirs(data_directory(), 0o755, exist_ok=True)
        os.symlink(tempfile.mkdtemp(prefix="tmp-", dir=data_directory()), path)
        return os.readlink(path)
    return path


def _discard(made: Container) -> None:
    made.discard()


def _add_home(process: dict[str, Any], root: str, uid: int) -> None:
    """Set HOME where the spec does not, as the runtimes do."""
    environment = process.setdefault("env", [])
    if not any(entry.startswith("HOME=") and entry != "HOME=" for entry in environment):
        process["env"] = [entry for entry in environment if entry != "HOME="]
        process["env"].append("HOME=" + accounts.home(root, uid))


def _warn(invocation: Invocation, spec: dict[str, Any], obstacle: str) -> None:
    """Say once what this container has not got."""
    # Read-only mounts are not either, but hardly a spec is without, for /sys.
    missing = ["namespaces", "cgroups"]
    if spec["linux"].get("seccomp"):
        missing.append("seccomp")
    if spec["root"].get("readonly"):
        missing.append("a read-only root file system")
    if spec.get("hooks"):
        missing.append("hooks")
    report(
        f"{obstacle}: the container runs under PRoot alone, without {', '.join(missing)}",
        invocation.options.get("log"),
        invocation.options.get("log-format"),
        "warning",
    )


def _write_pid(path: str, pid: int) -> None:
    # A process that waits for the file must find a number in it.
    unfinished = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}")
    try:
        with open(unfinished, "w") as file:
            file.write(str(pid))
        os.rename(unfinished, path)
    except OSError as error:
        raise Error(f"cannot write the pid file {path}: {error.strerror}") from None


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""
