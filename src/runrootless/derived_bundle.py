"""The bundle that the runtime gets: the user's, made rootless and given an engine."""

from __future__ import annotations

from runrootless import engines, state
from runrootless.bundle import json_file
from runrootless.bundle.host import HostFacts
from runrootless.bundle.spec import ENGINE_ANNOTATION, load
from runrootless.bundle.transform import MEMORY, transform


def derive(engine: str, bundle: str, directory: str, systemd_cgroup: bool) -> engines.Choice:
    """Derive a rootless bundle from the one in the directory ``bundle``; return its engine.

    It goes to the container's private ``directory``. ``engine`` is the value of
    ``--engine``, ``systemd_cgroup`` tells whether the runtime asks systemd for cgroups.
    Raises Error for a bundle that cannot be run.
    """
    spec = load(bundle)
    choice = engines.choose(engine, spec.get("annotations", {}).get(ENGINE_ANNOTATION, ""))
    identity = transform(spec, bundle, HostFacts(), systemd_cgroup, choice.engine.REAL_IDS)
    spec[MEMORY]["engine"] = choice.name
    choice.engine.apply(spec, directory, identity)
    json_file.write(f"{directory}/{state.CONFIG}", spec, state.MODE)
    return choice
