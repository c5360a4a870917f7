"""The bundle that the runtime gets: the user's, made rootless and given an engine."""

from __future__ import annotations

from runrootless import engines, state
from runrootless.bundle import json_file
from runrootless.bundle.host import HostFacts
from runrootless.bundle.spec import ENGINE_ANNOTATION, NETWORK_ANNOTATION, load
from runrootless.bundle.transform import MEMORY, transform


def derive(
    engine: str, bundle: str, directory: str, systemd_cgroup: bool, network: str = ""
) -> engines.Choice:
    """Derive a rootless bundle from the one in the directory ``bundle``; return its engine.

    It goes to the container's private ``directory``. ``engine`` is the value of
    ``--engine``, ``systemd_cgroup`` tells whether the runtime asks systemd for cgroups, and
    ``network`` is the value of ``--network``, empty for the bundle's.
    Raises Error for a bundle that cannot be run.
    """
    spec = load(bundle)
    annotations = spec.get("annotations", {})
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
    spec[MEMORY]["engine"] = choice.name
    choice.engine.apply(spec, directory, identity)
    json_file.write(f"{directory}/{state.CONFIG}", spec, state.MODE)
    return choice
