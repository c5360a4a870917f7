"""The bundle that the runtime gets: the user's, made rootless and given an engine."""

from __future__ import annotations

from runrootless import state
from runrootless.bundle import json_file
from runrootless.bundle.host import HostFacts
from runrootless.bundle.spec import load
from runrootless.bundle.transform import has_new_user_namespace, transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.engines import Engine


def derive(engine: Engine, bundle: str, directory: str, systemd_cgroup: bool) -> None:
    """Derive a rootless bundle from the one in the directory ``bundle``.

    It goes to the container's private ``directory``. ``systemd_cgroup`` tells whether the
    runtime asks systemd for cgroups. Raises Error for a bundle that cannot be run.
    """
    spec = load(bundle)
    identity = transform(spec, bundle, HostFacts(), systemd_cgroup)
    if not has_new_user_namespace(spec):
        from runrootless.integrations import image_owners

        image_owners.restore(spec["root"]["path"])
    engine.apply(spec, directory, identity)
    json_file.write(f"{directory}/{state.CONFIG}", spec, state.MODE)
