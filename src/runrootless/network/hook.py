"""The hook that connects a container's network namespace, and the process that ends the helper.

The runtime executes it as ``createRuntime`` hook, with the container's state on the
standard input (OCI runtime.md, "State").  It returns when the network is up.  A
process stays in the background that ends the helper when the container's first
process has ended, however that happened; if something kills it, slirp4netns ends by
itself.  This module is executed by the runtime, not loaded by ``run``.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

from runrootless.bundle.json_file import scan
from runrootless.containers import background
from runrootless.linux import pidfd
from runrootless.linux.namespaces import CLONE_NEWUSER, setns
from runrootless.linux.process import drop_capabilities, set_dumpable, set_name

PROCESS_NAME = "runrootless-net"
"""The name in ps(1) of the process that stays."""

_PID_FILE = "pasta.pid"
_TAP = "tap0"
_TIMEOUT_MS = 20_000
# pasta complains of each message that it cannot send to the system logger as well.
_NOISE = "Failed to send"
_USAGE = b"Usage:"


def main(arguments: list[str]) -> int:
    """Start a helper: its name, the container's private directory, its program and options.

    Returns the exit code; what went wrong is on the standard error then.
    """
    name, directory, *command = arguments
    try:
        pid = int(scan(sys.stdin.read())["pid"])
        container = os.pidfd_open(pid)
        report_fd, our_fd = os.pipe()
        background.spawn(lambda _: _attend(name, directory, command, pid, container, our_fd))
        os.close(our_fd)
        with open(report_fd, "rb") as reader:
            problem = reader.read()
    except (OSError, ValueError, LookupError) as error:
        problem = str(error).encode()
    # An empty report is that of a process that was killed.
    if problem == b"\n":
        return 0
    text = problem.decode("utf-8", "replace").strip() or "its process was killed"
    _tell(f"runrootless: cannot start {name} for the container's network: {text}\n")
    return 1


def _tell(message: str) -> None:
    """Write to the standard error; crun throws that of a hook away, so to crun's own then."""
    sys.stderr.write(message)
    if os.path.samestat(os.fstat(2), os.stat(os.devnull)):
        try:
            os.write(pidfd.duplicate(os.getppid(), 2), message.encode())
        except OSError:
            pass


def _attend(
    name: str, directory: str, command: list[str], pid: int, container: int, report_fd: int
) -> None:
    """Start the helper, write what went wrong or an empty line, and end it in the end."""
    background.close_others([container, report_fd])
    set_name(PROCESS_NAME)
    # Its end of a session's terminal is no business of this process, nor are signals to all.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    start = _start_pasta if name == "pasta" else _start_slirp4netns
    try:
        helper, kept = start(command, directory, _join(pid))
    except Exception as error:
        os.write(report_fd, str(error).encode())
        return
    # A container may share the host's process IDs, and then it sees this process.
    set_dumpable(False)
    try:
        os.write(report_fd, b"\n")
    except OSError:
        # The hook was killed; the container's process then ends as well.
        pass
    os.close(report_fd)
    poll = select.poll()
    for descriptor in (container, helper):
        poll.register(descriptor, select.POLLIN)
    poll.poll()
    try:
        signal.pidfd_send_signal(helper, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if kept >= 0:
        os.close(kept)


def _join(pid: int) -> str:
    """Join the user namespace of a process and return a path of its network namespace.

    The helpers are root there, as they are below podman. They may give up capabilities
    before they open the namespace, and then a runtime's own process, which may not be
    dumpable, is closed to them (see ``runtimes.user_namespace``); this one is open.
    Raises OSError.
    """
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    setns(user, CLONE_NEWUSER)
    os.close(user)
    # What has capabilities or is not dumpable is closed to others of its user.
    drop_capabilities()
    set_dumpable(True)
    return f"/proc/{os.getpid()}/fd/{network}"


def _start_pasta(command: list[str], directory: str, namespace: str) -> tuple[int, int]:
    """Return a pidfd of the helper, which is connected by then. Raises OSError, RuntimeError."""
    pid_file = f"{directory}/{_PID_FILE}"
    messages = os.memfd_create("messages")
    # It goes to the background when all is ready.
    process = _spawn([*command, "--pid", pid_file, "--netns", namespace], messages)
    if process.wait(_TIMEOUT_MS / 1000) != 0:
        raise RuntimeError(_read(messages))
    with open(pid_file) as file:
        helper = os.pidfd_open(int(file.read()))
    os.unlink(pid_file)
    return helper, -1


def _start_slirp4netns(command: list[str], directory: str, namespace: str) -> tuple[int, int]:
    """Return a pidfd of the helper and a descriptor that it ends without.

    Raises OSError, RuntimeError.
    """
    ready, its_ready = os.pipe()
    its_exit, kept = os.pipe()
    messages = os.memfd_create("messages")
    options = [f"--ready-fd={its_ready}", f"--exit-fd={its_exit}", "--netns-type=path"]
    process = _spawn([*command, *options, namespace, _TAP], messages, its_ready, its_exit)
    os.close(its_ready)
    os.close(its_exit)
    poll = select.poll()
    poll.register(ready, select.POLLIN)
    if not poll.poll(_TIMEOUT_MS) or os.read(ready, 1) != b"1":
        process.kill()
        raise RuntimeError(_read(messages))
    os.close(ready)
    return os.pidfd_open(process.pid), kept


def _spawn(command: list[str], messages: int, *kept: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=messages,
        stderr=messages,
        pass_fds=kept,
        restore_signals=True,
        preexec_fn=_default_signals,
    )


def _default_signals() -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _read(messages: int) -> str:
    """Return what a helper had to say in one line, without its whole usage message."""
    with open(messages, "rb", closefd=False) as file:
        file.seek(0)
        text = file.read().partition(_USAGE)[0].decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if not line.startswith(_NOISE)]
    return "; ".join(line for line in lines if line)
