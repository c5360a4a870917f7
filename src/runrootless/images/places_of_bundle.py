"""Where a bundle has its root file system, and the side stores of that."""

from __future__ import annotations

import os

from runrootless.bundle import json_file
from runrootless.errors import Error

_ROOTFS = "rootfs"
_CONFIG = "config.json"


def root_of(bundle: str) -> str:
    """Return the absolute path of a bundle's root file system: what its config.json says.

    Raises ``Error`` where there is none, and OSError.
    """
    if not os.path.isdir(bundle):
        raise Error(f"there is no bundle {bundle}")
    name: object = _ROOTFS
    try:
        config = json_file.read(os.path.join(bundle, _CONFIG))
        name = config["root"]["path"]
    except (FileNotFoundError, KeyError, TypeError):
        pass
    if not isinstance(name, str) or not name:
        name = _ROOTFS
    path = os.path.realpath(os.path.join(bundle, name))
    if not os.path.isdir(path):
        raise Error(f"the bundle {bundle} has no root file system: {path} is no directory")
    return path


def side_stores_of(bundle: str, rootfs: str) -> list[str]:
    """Return what the paths of a root file system's side stores may begin with.

    As ``runrootless.derived_bundle`` has it, the first one that is there counts.
    """
    parent, name = os.path.split(rootfs)
    names = [f"{parent}/.{name}.", f"{bundle}/.{name}.", f"{bundle}/.{_ROOTFS}."]
    return list(dict.fromkeys(names))
