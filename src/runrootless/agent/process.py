"""The agent's processes: how they start, what they keep open, how they end."""

from __future__ import annotations

import _json  # noqa: F401 - used by json_file, and no import is possible later
import _socket
import errno
import fcntl
import gc
import os
import sys

from runrootless.agent import control
from runrootless.agent.confinement import withstand
from runrootless.agent.ledger import Ledger
from runrootless.agent.listener import Tracer
from runrootless.agent.log import Log
from runrootless.agent.settings import CREDENTIALS_NAME, Settings
from runrootless.agent.supervisor import Supervisor
from runrootless.agent.views import Views
from runrootless.containers import background
from runrootless.containers.state import remove_from_base
from runrootless.emulation.call import failure
from runrootless.emulation.callers.credential_table import CredentialTable
from runrootless.emulation.emulator import Emulator
from runrootless.emulation.fast_state import FastState
from runrootless.emulation.stores.attribute_store import AttributeStore
from runrootless.emulation.stores.owner_store import OwnerStore
from runrootless.linux.mounts import clone_tree, lasting_numbers
from runrootless.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, unshare
from runrootless.linux.process import set_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runrootless.agent.side_files import SideFile
    from runrootless.emulation.stores.side_store import SideStore

PROCESS_NAME = "runrootless-sup"
"""The supervisor's name in ps(1): the kernel keeps 15 bytes."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ENDED_ALONE = (
    "the process that supervises the container's agent has ended: "
    "what runs is emulated as before, but nothing more can be executed in the container"
)


def run(
    settings: Settings,
    socket: _socket.socket,
    runtime: int,
    side_files: Mapping[str, SideFile],
) -> None:
    """Serve the container until its last process has ended, then clean up after it."""
    set_name(PROCESS_NAME)
    log = Log(_open_log(settings.log), settings.log_format, settings.debug)
    try:
        _serve(settings, socket, runtime, side_files, log)
    except BaseException as error:
        log.exception("the agent ends", error)


def _serve(
    settings: Settings,
    socket: _socket.socket,
    runtime: int,
    side_files: Mapping[str, SideFile],
    log: Log,
) -> None:
    withstand()
    # By this it is known that somebody listens; children do not inherit it: fcntl(2).
    fcntl.lockf(settings.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    terminal = Terminal()
    # All by descriptor: after joining the container, these paths lead elsewhere.
    processes = _open_processes(log)
    base_path, directory_name = os.path.split(settings.directory)
    base = os.open(base_path, _DIRECTORY)
    credentials = os.open(
        f"{settings.directory}/{CREDENTIALS_NAME}",
        os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC,
        0o600,
    )
    states = -1
    states_path, container_id = os.path.split(settings.state_directory)
    if states_path:
        os.makedirs(states_path, 0o700, exist_ok=True)
        states = os.open(states_path, _DIRECTORY)
    owners, attributes = OwnerStore(), AttributeStore()
    stores: dict[str, SideStore] = {"ownership": owners, "attributes": attributes}
    for name, file in side_files.items():
        stores[name].use(file.fd, file.is_writable)
    # What a worker has as well.
    fast = None
    if settings.fast_path:
        fast = FastState(os.open(settings.fast_path, os.O_RDWR | os.O_CLOEXEC))
    kept = [settings.lock_fd, log.fd, terminal.fd, processes, credentials]
    kept += [fast.file] if fast else []
    kept += [fd for store in stores.values() for fd in store.descriptors()]
    directories = [file.directory for file in side_files.values()]
    if settings.tracer is not None:
        directories.append(settings.tracer.fileno())
    background.close_others([*kept, *directories, socket.fileno(), runtime, base, states])
    os.chdir(processes)
    ledger = Ledger()
    views = Views(processes, ledger.header)
    table = CredentialTable(
        credentials,
        lambda reason: log.error(
            f"{settings.directory}/{CREDENTIALS_NAME} takes no more of who processes are: {reason}"
        ),
    )
    emulator = Emulator(
        table, owners, attributes, views, settings.thorough, settings.terminal_group, fast
    )
    kept += emulator.descriptors()
    # Once for all workers, which are to begin as soon as they can.
    emulator.handlers()

    def alone() -> None:
        log.error(_ENDED_ALONE)
        terminal.say(_ENDED_ALONE)
        terminal.close()

    def unheard() -> None:
        if terminal.fd in kept:
            kept.remove(terminal.fd)
        terminal.close()

    supervisor = Supervisor(
        socket,
        runtime,
        settings.runtime,
        views,
        emulator,
        ledger,
        _opening(stores.values(), is_without_container=not settings.rootfs),
        kept,
        alone,
        unheard,
        log,
        settings.devices,
    )
    if settings.tracer is not None:
        supervisor.expect(Tracer(settings.tracer.detach()))
    _forbid_imports()
    gc.freeze()
    gc.enable()
    supervisor.run()
    if states < 0 or not _exists(container_id, states):
        remove_from_base(base, directory_name)
    for file in side_files.values():
        file.leave()


def _open_processes(log: Log) -> int:
    """Return a descriptor of the /proc directory, attached to nothing. Raises OSError.

    From its root ``..`` leads nowhere. Where that is not to be had it is a plain descriptor:
    then it is what all names that begin there are, numbers, that keeps others out.
    """
    try:
        return clone_tree(b"/proc")
    except OSError:
        pass
    try:
        return _clone_in_namespace(b"/proc")
    except OSError as error:
        log.debug(f"/proc is held as a plain directory: {error.strerror}")
    return os.open("/proc", _DIRECTORY)


def _clone_in_namespace(path: bytes) -> int:
    """Return what ``clone_tree`` does, from a mount namespace of a child's own. Raises OSError."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        try:
            unshare(CLONE_NEWUSER | CLONE_NEWNS)
            control.send(theirs, control.LISTENER, fds=[clone_tree(path)])
        except OSError as error:
            theirs.send(b"E%d" % (error.errno or errno.EIO))
        finally:
            os._exit(0)
    theirs.close()
    try:
        os.waitpid(child, 0)
        kind, data, fds = control.receive(ours)
        if fds:
            return fds[0]
        raise failure(int(data) if kind == b"E" else errno.EIO)
    finally:
        ours.close()


class Terminal:
    """The runtime's standard error, held as long as the runtime runs.

    Then it is closed, so that nobody waits for its end because of this process.
    """

    def __init__(self) -> None:
        try:
            self.fd = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)
        except OSError:
            self.fd = -1

    def say(self, message: str) -> None:
        """Write a line, if anybody is there to read it."""
        if self.fd >= 0:
            try:
                os.write(self.fd, f"runrootless: {message}\n".encode())
            except OSError:
                pass

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _opening(stores: Iterable[SideStore], is_without_container: bool) -> Callable[[], None]:
    """Return what opens the side stores once the container is joined."""

    def open_all() -> None:
        root_device = os.stat("/").st_dev
        # Without a container, other file systems than its own last as well.
        lasting = lasting_numbers() if is_without_container else None
        for store in stores:
            store.open(root_device, lasting)

    return open_all


def _exists(name: str, directory: int) -> bool:
    try:
        os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def _open_log(path: str) -> int:
    """Return a descriptor of the log file, -1 where there is none."""
    if not path:
        return -1
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return -1


def _forbid_imports() -> None:
    """Make every later import fail: it would load the container's files into the agent."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
