"""The bundle that the runtime gets: the user's, made rootless and given an engine."""

from __future__ import annotations

from runrootless import state
from runrootless.bundle import json_file
from runrootless.bundle.host import HostFacts
from runrootless.bundle.spec import load
from runrootless.bundle.transform import transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.engines import Engine


def derive(engine: Engine, bundle: str, config: str, directory: str, systemd_cgroup: bool) -> None:
    """Derive a rootless bundle from the one in the directory ``bundle``.

    ``config`` is the name of its configuration. The derived one goes to the container's
    private ``directory``. ``systemd_cgroup`` tells whether the runtime asks systemd for
    cgroups. Raises Error for a bundle that cannot be run.
    """
    spec = load(bundle, config)
    identity = transform(spec, bundle, HostFacts(), systemd_cgroup)
    engine.apply(spec, directory, identity)
    json_file.write(f"{directory}/{state.CONFIG}", spec, state.MODE)


def explain(bundle: str, config: str, directory: str) -> list[str]:
    """Return, a line each, what the bundle in ``bundle`` asks for and the derived one lacks.

    The arguments are those of ``derive``, which has been called. Raises Error as it does.
    """
    from runrootless.bundle.differences import differences

    return differences(load(bundle, config), json_file.read(f"{directory}/{state.CONFIG}"))
