"""The bundle that the runtime gets: the user's, made rootless and given an engine."""

from __future__ import annotations

import os

from runrootless import engines, interrupts, state
from runrootless.bundle import json_file
from runrootless.bundle.host import HostFacts
from runrootless.bundle.mounts import terminal_group
from runrootless.bundle.spec import ENGINE_ANNOTATION, NETWORK_ANNOTATION, load
from runrootless.bundle.transform import MEMORY, has_new_user_namespace, transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.runtimes import Runtime

SIDE_STORES = ".rootfs."
"""What the names of the side stores begin with, in the bundle of a container whose root file
system is not its bundle's."""


class Derived:
    """The engine of a derived bundle, its root file system (an absolute path), and what the
    paths of the side stores begin with and the group of terminals, as ``Settings`` has it."""

    __slots__ = ("choice", "rootfs", "side_stores", "terminal_group")

    def __init__(
        self,
        choice: engines.Choice,
        rootfs: str,
        side_stores: list[str],
        terminal_group: int | None,
    ) -> None:
        self.choice = choice
        self.rootfs = rootfs
        self.side_stores = side_stores
        self.terminal_group = terminal_group


def derive(
    engine: str,
    bundle: str,
    config: str,
    directory: str,
    systemd_cgroup: bool,
    runtime: Runtime,
    network: str = "",
) -> Derived:
    """Derive a rootless bundle from the one in the directory ``bundle``.

    ``config`` is the name of its configuration. The derived one goes to the container's
    private ``directory``. ``engine`` is the value of ``--engine``, ``systemd_cgroup`` tells
    whether ``runtime`` asks systemd for cgroups, and ``network`` is the value of
    ``--network``, empty for the bundle's. Raises Error for a bundle that cannot be run.
    """
    spec = load(bundle, config)
    annotations = spec.get("annotations", {})
    group = terminal_group(spec)
    choice = engines.choose(engine, annotations.get(ENGINE_ANNOTATION, ""))
    host = HostFacts()
    network = network or annotations.get(NETWORK_ANNOTATION, "")
    if network:
        from runrootless.network import Network

        wanted = Network(network)
        wanted.set_namespace(spec)
    real_ids = choice.engine.REAL_IDS
    identity = transform(spec, bundle, host, systemd_cgroup, real_ids, own_network=bool(network))
    if network:
        wanted.connect(spec, directory, host)
    rootfs = spec["root"]["path"]
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
    spec[MEMORY]["engine"] = choice.name
    choice.engine.apply(spec, directory, identity, runtime)
    json_file.write(f"{directory}/{state.CONFIG}", spec, state.MODE)
    return Derived(choice, rootfs, side_stores, group)


def explain(bundle: str, config: str, directory: str) -> list[str]:
    """Return, a line each, what the bundle in ``bundle`` asks for and the derived one lacks.

    The arguments are those of ``derive``, which has been called. Raises Error as it does.
    """
    from runrootless.bundle.differences import differences

    return differences(load(bundle, config), json_file.read(f"{directory}/{state.CONFIG}"))
