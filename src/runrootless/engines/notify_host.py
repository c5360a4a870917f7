"""The notify engine without a container: the caller's command comes under the filter.

This does the work of an OCI runtime: a user namespace in which the caller is root, and a
mount namespace so that mount(2) works and the agent can follow. The launcher runs before
the command as in a container.
"""

from __future__ import annotations

import os

from runrootless import interrupts, launcher, requirements
from runrootless.agent import user_stores
from runrootless.agent.launch import launch
from runrootless.agent.settings import Settings
from runrootless.containers import garbage, state
from runrootless.errors import Error
from runrootless.linux import namespaces
from runrootless.linux.namespaces import CLONE_NEWNS
from runrootless.linux.process import set_no_new_privileges

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.launcher import Words


def enter(
    log: str,
    log_format: str,
    debug: bool,
    words: Words,
    thorough: bool = False,
    without: int = 0,
) -> list[str]:
    """Return the words that run a command under emulation, for it and its descendants.

    With ``thorough`` that is as that engine does it. ``without`` are flags of the filter that
    are not asked for, as on a kernel that does not know them. Raises Error where the host does
    not allow what it takes.
    """
    name = "thorough" if thorough else "notify"
    requirements.require_descriptors()
    requirements.require_processes(requirements.PROCESSES_OF_COMMAND)
    base = state.open_base()
    side_stores = _side_stores(base, log, log_format)
    garbage.collect(base)
    container_id = f"emulate-{os.urandom(4).hex()}"
    interrupts.hold()
    try:
        directory = state.create_container_directory(base, container_id, state.NOWHERE)
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
    set_no_new_privileges()
    return before_command(name, words, f"{path}/{state.LISTENER}", without)


def become_root() -> None:
    """Enter a user namespace, in which the caller is root, and a mount namespace.

    podman and buildah are told, or they would take it for real root and look for images in
    its directories. Raises Error where that is not allowed.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        namespaces.become_root(CLONE_NEWNS)
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


def _side_stores(base: str, log: str, log_format: str) -> list[str]:
    """Return what the paths of the caller's side stores begin with.

    Where they cannot be in a directory that lasts they are in the private directory ``base``,
    which the caller is told.
    """
    path = user_stores.directory()
    apart = os.path.join(base, user_stores.APART)
    refusal = user_stores.refusal(path) or user_stores.make(path)
    if not refusal:
        return [f"{path}/"]
    from runrootless.report import report

    report(
        f"{refusal}: owners of symlinks and special files are kept in {base}, until that is "
        "removed, as at the end of a session: set XDG_DATA_HOME to a directory of your own",
        log,
        log_format,
        "warning",
    )
    if path:
        user_stores.copy(path, apart)
    return [apart]


def before_command(name: str, words: Words, socket: str = "", without: int = 0) -> list[str]:
    """Return what runs a command under the filter of an engine, before its name.

    ``socket`` is that of the agent, if the engine has one, and ``without`` as to ``enter``.
    Raises Error.
    """
    files = [launcher.make(name, words, runs_scripts=True, without=without)]
    if socket:
        files.append(launcher.connect(socket))
    return [launcher.path(launcher.put_aside(files))]
