"""The agent's process: what it keeps open, how it starts and what it leaves behind."""

from __future__ import annotations

import _json  # noqa: F401 - used by json_file, and no import is possible later
import _socket
import gc
import os
import resource
import sys

from runrootless import background
from runrootless.agent.launch import CREDENTIALS_NAME, Settings
from runrootless.agent.log import Log
from runrootless.agent.server import Server
from runrootless.agent.views import Views
from runrootless.emulation.attribute_store import AttributeStore
from runrootless.emulation.credential_table import CredentialTable
from runrootless.emulation.emulator import Emulator
from runrootless.emulation.owner_store import OwnerStore
from runrootless.linux.mounts import lasting_numbers
from runrootless.linux.process import set_name
from runrootless.state import remove_from_base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runrootless.agent.side_files import SideFile
    from runrootless.emulation.side_store import SideStore

PROCESS_NAME = "runrootless-agt"
"""The agent's name in ps(1): the kernel keeps 15 bytes."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


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
    # All by descriptor: after joining the container, these paths lead elsewhere.
    processes = os.open("/proc", _DIRECTORY)
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
    keep = {socket.fileno(), runtime, settings.lock_fd, log.fd, processes, base, credentials}
    for file in side_files.values():
        keep |= {file.fd, file.directory}
    background.close_others(keep | {states})
    os.chdir(processes)
    _raise_descriptor_limit()
    views = Views(processes)
    owners, attributes = OwnerStore(), AttributeStore()
    table = CredentialTable(
        credentials,
        lambda reason: log.error(
            f"{settings.directory}/{CREDENTIALS_NAME} takes no more of who processes are: {reason}"
        ),
    )
    stores: dict[str, SideStore] = {"ownership": owners, "attributes": attributes}
    for name, file in side_files.items():
        stores[name].use(file.fd, file.is_writable)
    server = Server(
        socket,
        runtime,
        views,
        Emulator(table, owners, attributes, views, settings.thorough),
        _opening(stores.values(), is_without_container=not settings.state_directory),
        log,
    )
    _forbid_imports()
    gc.freeze()
    gc.enable()
    server.serve()
    if states < 0 or not _exists(container_id, states):
        remove_from_base(base, directory_name)
    for file in side_files.values():
        file.leave()


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


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _forbid_imports() -> None:
    """Make every later import fail: it would load the container's files into the agent."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
