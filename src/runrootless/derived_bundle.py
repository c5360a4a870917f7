"""The bundle that the runtime gets: the user's, made rootless and given an engine."""

from __future__ import annotations

from runrootless import state
from runrootless.bundle import json_file
from runrootless.bundle.host import HostFacts
from runrootless.bundle.spec import load
from runrootless.bundle.transform import transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.engines import Engine


NETWORK_ANNOTATION = "org.runrootless.network"
"""The annotation that stands for ``--network`` in a bundle (OCI config.md, "Annotations")."""


def derive(
    engine: Engine, bundle: str, directory: str, systemd_cgroup: bool, network: str = ""
) -> None:
    """Derive a rootless bundle from the one in the directory ``bundle``.

    It goes to the container's private ``directory``. ``systemd_cgroup`` tells whether the
    runtime asks systemd for cgroups; ``network`` is as the flag ``--network`` has it, empty
    for the bundle's. Raises Error for a bundle that cannot be run.
    """
    spec = load(bundle)
    host = HostFacts()
    network = network or _annotated_network(spec)
    if network:
        from runrootless.network import Network

        wanted = Network(network)
        wanted.set_namespace(spec)
        identity = transform(spec, bundle, host, systemd_cgroup, own_network=True)
        wanted.connect(spec, directory, host)
    else:
        identity = transform(spec, bundle, host, systemd_cgroup)
    engine.apply(spec, directory, identity)
    json_file.write(f"{directory}/{state.CONFIG}", spec, state.MODE)


def _annotated_network(spec: dict[str, Any]) -> str:
    annotations = spec.get("annotations")
    network = annotations.get(NETWORK_ANNOTATION) if isinstance(annotations, dict) else None
    return network if isinstance(network, str) else ""
