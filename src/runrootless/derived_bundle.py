"""The bundle that the runtime gets: the user's, made rootless and given an engine."""

from __future__ import annotations

import os

from runrootless import state
from runrootless.bundle import json_file
from runrootless.bundle.host import HostFacts
from runrootless.bundle.spec import load
from runrootless.bundle.transform import MEMORY, has_new_user_namespace, transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.engines import Engine

OWNERSHIP = ".rootfs.ownership"
"""The side store, in the bundle of a container whose root file system is not its bundle's."""


def derive(engine: Engine, bundle: str, directory: str, systemd_cgroup: bool) -> None:
    """Derive a rootless bundle from the one in the directory ``bundle``.

    It goes to the container's private ``directory``. ``systemd_cgroup`` tells whether the
    runtime asks systemd for cgroups. Raises Error for a bundle that cannot be run.
    """
    spec = load(bundle)
    identity = transform(spec, bundle, HostFacts(), systemd_cgroup)
    if not has_new_user_namespace(spec):
        from runrootless.integrations import image_owners

        if image_owners.restore(spec["root"]["path"]):
            # Beside the rootfs it would be in the way of who removes that, or stay for ever.
            spec[MEMORY]["ownership"] = os.path.join(os.path.abspath(bundle), OWNERSHIP)
    engine.apply(spec, directory, identity)
    json_file.write(f"{directory}/{state.CONFIG}", spec, state.MODE)
