"""The notify engine without a container: the caller's own process comes under the filter.

What an OCI runtime does otherwise is done here: a user namespace in which the caller is
root, a mount namespace so that mount(2) works and the agent can follow, the filter, and
the handover of its listener to the agent by the message that a runtime sends.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct
from _thread import allocate_lock, start_new_thread

from runrootless import interrupts, requirements, state
from runrootless.agent.launch import Settings, launch
from runrootless.bundle.json_file import dump
from runrootless.emulation.seccomp_filter import MACHINES, build
from runrootless.errors import Error
from runrootless.linux import seccomp
from runrootless.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, unshare
from runrootless.linux.process import set_no_new_privileges

SIDE_STORES = "runrootless"
"""The directory of the side stores of what is emulated on the host, below $XDG_DATA_HOME."""

_FLAGS = seccomp.FILTER_NEW_LISTENER | seccomp.FILTER_SPEC_ALLOW

WANTED = seccomp.FILTER_WAIT_KILLABLE_RECEIVE
"""What a filter is installed with where the kernel knows it, Linux 5.19."""


def enter(
    log: str, log_format: str, debug: bool, thorough: bool = False, wanted: int = WANTED
) -> None:
    """Put this process under emulation, which lasts as long as it and its descendants.

    From the return on its system calls are intercepted, with ``thorough`` as that engine does
    it. ``wanted`` are flags of the filter that the kernel may not know: without them it is as
    on such a kernel. Raises Error where the host does not allow what it takes.
    """
    machine = os.uname().machine
    if machine not in MACHINES:
        raise Error(f"system calls of {machine} are not emulated yet: use --engine proot")
    program = build(machine, seccomp.RETURN_NOTIFY, thorough=thorough)
    requirements.require_descriptors()
    side_stores = _side_stores()
    base = state.open_base()
    state.collect_garbage(base)
    name = f"emulate-{os.urandom(4).hex()}"
    interrupts.hold()
    try:
        directory = state.create_container_directory(base, name, state.NOWHERE)
        path, lock = directory.path, directory.lock_fd
        try:
            become_root()
            launch(Settings(path, lock, "", log, log_format, debug, side_stores, thorough=thorough))
        except BaseException:
            state.remove_container_directory(path)
            raise
    finally:
        interrupts.let_through()
    # From here on the agent removes the directory, when this process ends.
    _come_under_filter(program, f"{directory.path}/{state.LISTENER}", wanted)


def become_root() -> None:
    """Enter a user namespace, in which the caller is root, and a mount namespace.

    podman and buildah are told, lest they take it for the real root and look for images in
    its directories. Raises Error where that is not allowed.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNS)
        # Without that, an unprivileged gid_map is refused: user_namespaces(7).
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError as error:
        raise Error(
            f"no user namespace can be had ({error.strerror}): "
            "`runrootless doctor` says what is in the way"
        ) from None
    if uid:
        # containers/storage, pkg/unshare: as below `podman unshare`.
        os.environ.update(
            _CONTAINERS_USERNS_CONFIGURED="done",
            _CONTAINERS_ROOTLESS_UID=str(uid),
            _CONTAINERS_ROOTLESS_GID=str(gid),
        )


def _side_stores() -> list[str]:
    """Return what the paths of the caller's side stores begin with. Raises Error.

    It is a directory that is there.
    """
    data = os.environ.get("XDG_DATA_HOME", "")
    if not data.startswith("/"):
        data = os.path.expanduser("~/.local/share")
    path = os.path.join(data, SIDE_STORES)
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except OSError as error:
        raise Error(
            f"no place to keep the owners of files, {path}: {error.strerror}: "
            "set XDG_DATA_HOME to a directory of your own"
        ) from None
    return [f"{path}/"]


def _come_under_filter(program: bytes, path: str, wanted: int) -> None:
    """Install the filter and send its listener to the agent's socket ``path``. Raises Error."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.connect(path)
    process = {"ociVersion": "1.0.2", "fds": ["seccompFd"], "pid": os.getpid(), "metadata": ""}
    message = dump(process).encode()
    set_no_new_privileges()
    # Sending it is intercepted, so a thread does that from before the filter is there.
    listeners: list[int] = []
    is_installed, is_sent = allocate_lock(), allocate_lock()
    is_installed.acquire()
    is_sent.acquire()

    def send() -> None:
        is_installed.acquire()
        try:
            for listener in listeners:
                ancillary = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", listener))
                connection.sendmsg([message], [ancillary])
        finally:
            is_sent.release()

    start_new_thread(send, ())
    try:
        listeners.append(_install(program, wanted))
    finally:
        is_installed.release()
        is_sent.acquire()
    # If the agent ends, the calls are to fail rather than to wait for ever.
    os.close(listeners[0])
    connection.close()


def _install(program: bytes, wanted: int) -> int:
    for flags in (_FLAGS | wanted, _FLAGS):
        try:
            return seccomp.install(program, flags)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise Error(
                    "another program has a seccomp listener here, and there can be one only"
                ) from None
            if error.errno != errno.EINVAL:
                raise Error(f"no seccomp listener can be had: {error.strerror}") from None
    raise Error("this kernel has no seccomp listeners: it takes Linux 5.9 or newer")
