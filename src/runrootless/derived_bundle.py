"""The bundle that the runtime gets: the user's, made rootless and given an engine."""

from __future__ import annotations

import os
from errno import ENOENT

from runrootless import engines, fast_path, interrupts, launcher
from runrootless.agent.settings import CREDENTIALS_NAME
from runrootless.bundle import json_file, name_service
from runrootless.bundle.devices import bind_devices, require_places
from runrootless.bundle.hooks import put_bundle
from runrootless.bundle.host import HostFacts
from runrootless.bundle.mounts import terminal_group
from runrootless.bundle.profile import denied, permit_seccomp
from runrootless.bundle.program import is_missed
from runrootless.bundle.spec import (
    DNS_ANNOTATION,
    ENGINE_ANNOTATION,
    FAST_PATH_ANNOTATION,
    NETWORK_ANNOTATION,
    load,
    unknown_annotations,
)
from runrootless.bundle.transform import MEMORY, has_new_user_namespace, transform
from runrootless.containers import state
from runrootless.emulation.fast_state import numbered_filter
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.runtimes.neighbours import Neighbour

# Each holds a connection to the agent from the beginning, which has room for some only.
_HOOKS_LIMIT = 32
SIDE_STORES = ".rootfs."
"""What the names of the side stores begin with, in the bundle of a container whose root file
system is not its bundle's."""

_OVERRIDE = "user.containers.override_stat"


class Derived:
    """The engine of a derived bundle, its root file system (an absolute path), and what the
    paths of the side stores begin with and the group of terminals, as ``Settings`` has it.

    ``devices`` are what the agent is to make, as ``bundle.devices`` has them,
    ``filter`` is that for a launcher, None where the process gets none, and ``hooks`` how many
    hooks get one as well. ``neighbour`` is the container whose namespaces are joined, or None.
    ``fast_path`` is the path of the object of that, empty where there is none, and ``slow`` says
    why then, if it was wanted. ``terminal`` tells whether the process has one, and ``notes`` are
    lines about what in the bundle may be a mistake.
    """

    __slots__ = (
        "choice",
        "devices",
        "fast_path",
        "filter",
        "hooks",
        "neighbour",
        "notes",
        "rootfs",
        "side_stores",
        "slow",
        "terminal",
        "terminal_group",
    )

    def __init__(
        self,
        choice: engines.Choice,
        rootfs: str,
        side_stores: list[str],
        filter: bytes | None,
        terminal_group: int | None,
        hooks: int,
        devices: list[dict[str, Any]],
        neighbour: Neighbour | None,
        fast_path: str,
        slow: str | None,
        terminal: bool,
        notes: list[str],
    ) -> None:
        self.choice = choice
        self.rootfs = rootfs
        self.side_stores = side_stores
        self.filter = filter
        self.hooks = hooks
        self.devices = devices
        self.neighbour = neighbour
        self.terminal_group = terminal_group
        self.fast_path = fast_path
        self.slow = slow
        self.terminal = terminal
        self.notes = notes


def derive(
    engine: str,
    bundle: str,
    config: str,
    directory: str,
    systemd_cgroup: bool,
    network: str = "",
    first: int = 3,
    dns: str = "",
    hooks_too: bool = False,
    fast: str = "",
    opens_devices: bool = False,
) -> Derived:
    """Derive a rootless bundle from the one in the directory ``bundle``.

    ``config`` is the name of its configuration. The derived one goes to the container's
    private ``directory``. ``engine`` is the value of ``--engine``, ``systemd_cgroup`` tells
    whether the runtime asks systemd for cgroups, ``network`` is the value of
    ``--network``, empty for the bundle's, ``dns`` likewise, and ``first`` is the descriptor that a
    launcher would be. ``hooks_too`` tells whether hooks in the container get one, and ``fast`` is
    the value of ``--fast-path``. ``opens_devices`` tells whether the runtime opens what is in the
    place of a device: others get devices as mounts. Raises Error for a bundle that cannot be run.
    """
    spec = load(bundle, config)
    annotations = spec.get("annotations", {})
    group = terminal_group(spec)
    choice = engines.choose(engine, annotations.get(ENGINE_ANNOTATION, ""))
    host = HostFacts()
    network_source = "--network" if network else f"the annotation {NETWORK_ANNOTATION}"
    network = network or annotations.get(NETWORK_ANNOTATION, "")
    dns_source = "--dns" if dns else f"the annotation {DNS_ANNOTATION}"
    has_dns = name_service.is_wanted(dns or annotations.get(DNS_ANNOTATION, ""), dns_source)
    if network:
        from runrootless.network import Network

        wanted = Network(network, network_source)
        wanted.set_namespace(spec)
    neighbour = _neighbour(spec, host)
    if network and wanted.program and neighbour is not None and neighbour.user_namespace:
        # Its helper would be in reach of the other container.
        raise Error(
            f"--network {network} cannot be had in the user namespace of another container: "
            "name that container's network namespace, or leave the host's"
        )
    if neighbour is not None and choice.name in engines.WITH_LISTENER:
        _share_credentials(neighbour, directory)
    real_ids = choice.engine.REAL_IDS
    identity = transform(
        spec,
        bundle,
        host,
        systemd_cgroup,
        real_ids,
        own_network=bool(network),
        emulates_devices=choice.name in engines.WITH_LISTENER,
        user_namespace=neighbour.user_namespace if neighbour else "",
    )
    if opens_devices:
        require_places(spec)
    else:
        bind_devices(spec)
    put_bundle(spec, directory, bundle)
    if network:
        wanted.connect(spec, directory, host, has_dns)
    elif has_dns:
        name_service.add_host_files(spec, host, directory)
    rootfs = spec["root"]["path"]
    side_stores = restore_owners(spec, bundle, rootfs)
    spec[MEMORY]["engine"] = choice.name
    choice.engine.apply(spec, directory, identity)
    has_fast_path, slow = False, None
    if fast_path.is_wanted(fast, annotations.get(FAST_PATH_ANNOTATION, "")):
        slow = fast_path.obstacle(spec, choice.name, directory, host)
        has_fast_path = slow is None
        if has_fast_path:
            spec[MEMORY]["fast"] = f"{fast_path.put(spec, directory, host):x}"
    program = put_launcher(spec, first) if choice.name in engines.WITH_FILTER else None
    hooks = put_before_hooks(spec, first) if hooks_too and program is not None else 0
    json_file.write(f"{directory}/{state.CONFIG}", spec, state.MODE)
    devices = spec[MEMORY].get("devices", [])
    path = f"{directory}/{fast_path.NAME}" if has_fast_path else ""
    return Derived(
        choice,
        rootfs,
        side_stores,
        program,
        group,
        hooks,
        devices,
        neighbour,
        path,
        slow,
        bool(spec["process"].get("terminal")),
        unknown_annotations(spec),
    )


def _neighbour(spec: dict[str, Any], host: HostFacts) -> Neighbour | None:
    """Return the container of ours that the spec joins, or None. Raises Error."""
    if not any(one.get("path") for one in spec.get("linux", {}).get("namespaces", ())):
        return None
    from runrootless.runtimes import neighbours

    return neighbours.find(spec, host)


def _share_credentials(neighbour: Neighbour, directory: str) -> None:
    """Let the numbers that processes carry mean the same in both containers. Raises Error."""
    try:
        os.link(f"{neighbour.directory}/{CREDENTIALS_NAME}", f"{directory}/{CREDENTIALS_NAME}")
    except FileNotFoundError:
        # It has no agent.
        pass
    except OSError as error:
        raise Error(
            f"cannot share {neighbour.directory}/{CREDENTIALS_NAME}: {error.strerror}"
        ) from None


def restore_owners(spec: dict[str, Any], bundle: str, rootfs: str) -> list[str]:
    """Record the owners that other programs have kept of the files of a root file system.

    ``rootfs`` is its absolute path, ``bundle`` that of the directory of ``spec``. Return what the
    paths of the side stores begin with. Raises Error.
    """
    parent, name = os.path.split(rootfs)
    # In the bundle where the directory that the rootfs is in is somebody else's.
    bundle = os.path.abspath(bundle)
    side_stores = [f"{parent}/.{name}.", f"{bundle}/.{name}."]
    if not has_new_user_namespace(spec):
        from runrootless.integrations import image_owners

        with interrupts.Raised():
            is_of_image = image_owners.restore(rootfs)
        if is_of_image:
            # Beside the rootfs they would be in the way of who removes that, or stay for ever.
            side_stores = [os.path.join(bundle, SIDE_STORES)]
    if _has_override(rootfs):
        from runrootless.integrations import override_stat

        with interrupts.Raised():
            override_stat.restore(rootfs)
    return side_stores


def _has_override(rootfs: str) -> bool:
    """Return whether owners may be kept as ``integrations.override_stat`` has it."""
    try:
        os.getxattr(rootfs, _OVERRIDE)
    except OSError:
        return False
    return True


def put_launcher(spec: dict[str, Any], first: int) -> bytes | None:
    """Put the launcher, descriptor ``first``, before the process of a rootless spec.

    Return its filter, None where the process has no program that a launcher
    could execute: then the runtime is to say so, and execve(2) fails lest there be one after
    all. Raises Error for a spec in which none could be executed.
    """
    linux = spec["linux"]
    if is_missed(spec):
        from runrootless.bundle.refusals import refuse

        linux["seccomp"] = refuse(linux.get("seccomp"), {ENOENT: ("execve", "execveat")})
        return None
    if not any(_is_proc(mount) for mount in spec["mounts"]):
        raise Error(
            "the bundle mounts no /proc, by which the process comes under emulation: "
            "add that mount (type proc), or take --engine none"
        )
    profile = linux.get("seccomp") or {}
    memory = spec[MEMORY]
    if memory["engine"] == "zero" and profile:
        from runrootless.engines import zero

        memory["denied"] = denied(profile, zero.calls())
    memory["seccomp"] = permit_seccomp(profile) if profile else None
    spec["process"]["args"] = [launcher.path(first), *spec["process"]["args"]]
    return filter_program(memory)


def put_before_hooks(spec: dict[str, Any], first: int) -> int:
    """Put launchers before the hooks that the container's first process executes.

    They are the descriptors behind that process's own, which is ``first``. Return how many
    there are. Raises Error for too many.
    """
    hooks = (spec.get("hooks") or {}).get("startContainer") or []
    if len(hooks) > _HOOKS_LIMIT:
        raise Error(f"hooks.startContainer has {len(hooks)} entries: at most {_HOOKS_LIMIT} can be")
    size = launcher.size(spec[MEMORY]["engine"])
    for number, hook in enumerate(hooks, 1):
        program = hook.get("path")
        if not program:
            # The runtime is to say so.
            continue
        # By a path, as the runtimes take it.
        program = program if "/" in program else f"./{program}"
        arguments = hook.get("args") or [hook["path"]]
        hook["path"] = launcher.path(first + number * size)
        hook["args"] = [hook["path"], program, *arguments]
    return len(hooks)


def filter_program(memory: dict[str, Any]) -> bytes:
    """Return the filter for a container, of whose derived spec this is our own property.

    Raises Error where there is none for this machine.
    """
    if memory.get("denied"):
        from runrootless.engines import zero

        program = zero.filter_program(os.uname().machine, memory["denied"])
    elif memory.get("fast"):
        program = numbered_filter(launcher.read("fast.bpf"), int(memory["fast"], 16))
    else:
        program = launcher.read(f"{memory['engine']}.bpf")
    answer = memory.get("seccomp")
    if answer is None:
        return program
    from runrootless.emulation.seccomp_filter import answering_seccomp

    return answering_seccomp(answer) + program


def _is_proc(mount: dict[str, Any]) -> bool:
    destination: str = mount.get("destination", "")
    return os.path.normpath(destination) == "/proc"


def explain(bundle: str, config: str, directory: str) -> list[str]:
    """Return, a line each, what the bundle in ``bundle`` asks for and the derived one lacks.

    The arguments are those of ``derive``, which has been called. Raises Error as it does.
    """
    from runrootless.bundle.differences import differences

    before, after = load(bundle, config), json_file.read(f"{directory}/{state.CONFIG}")
    lines = differences(before, after)
    hooks = before.get("hooks", {}).get("startContainer")
    has_filter = after[MEMORY]["engine"] in engines.WITH_FILTER
    if has_filter and hooks and hooks == after["hooks"]["startContainer"]:
        lines.append("hooks.startContainer are not emulated: this runtime gives them no launcher")
    return lines
