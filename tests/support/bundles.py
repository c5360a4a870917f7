"""Regular OCI bundles, as ``runc spec`` writes them."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from support.users import Unprivileged

Config = dict[str, Any]

# As with `docker run --cap-add SYS_ADMIN`: what it takes to mount.
ADMINISTRATOR = (
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_SETFCAP",
)


class Bundle:
    """A bundle that the user owns: a directory with config.json, and a root file system."""

    def __init__(self, path: str, rootfs: str) -> None:
        self.path = path
        self.rootfs = rootfs
        self.config_path = os.path.join(path, "config.json")

    def read(self) -> Config:
        """Return the configuration."""
        with open(self.config_path) as file:
            config: Config = json.load(file)
        return config

    def change(self, change: Callable[[Config], object]) -> "Bundle":
        """Let a function change the configuration in place."""
        config = self.read()
        change(config)
        # Into the same file, which stays the user's.
        with open(self.config_path, "w") as file:
            json.dump(config, file, indent="\t")
        return self

    def set(
        self,
        args: Sequence[str] | None = None,
        *,
        user: tuple[int, int, Sequence[int]] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        terminal: bool | None = None,
    ) -> "Bundle":
        """Set what of ``process`` is given."""

        def change(config: Config) -> None:
            process = config["process"]
            if args is not None:
                process["args"] = list(args)
            if user is not None:
                process["user"] = {"uid": user[0], "gid": user[1]}
                if user[2]:
                    process["user"]["additionalGids"] = list(user[2])
            for name, value in (env or {}).items():
                process["env"].append(f"{name}={value}")
            if cwd is not None:
                process["cwd"] = cwd
            if terminal is not None:
                process["terminal"] = terminal

        return self.change(change)

    def add_capabilities(self, names: Sequence[str]) -> "Bundle":
        """Leave the process these capabilities, too."""

        def change(config: Config) -> None:
            for kind in ("bounding", "effective", "permitted"):
                config["process"]["capabilities"][kind] += names

        return self.change(change)

    def set_capabilities(self, names: Sequence[str]) -> "Bundle":
        """Leave the process these capabilities, and no others."""

        def change(config: Config) -> None:
            sets = {kind: list(names) for kind in ("bounding", "effective", "permitted")}
            config["process"]["capabilities"] = sets

        return self.change(change)

    def script(self, script: str) -> "Bundle":
        """Let the container run a shell script."""
        return self.set(["/bin/sh", "-c", script])


def make_bundle(user: Unprivileged, path: str, rootfs: str) -> Bundle:
    """Make a bundle in a directory of the user's.

    What is written is what ``runc spec`` wrote, but for a root file system that
    can be written to, and no terminal.
    """
    user.run(["runc", "spec"], cwd=path).check()
    bundle = Bundle(path, rootfs)

    def change(config: Config) -> None:
        inside = os.path.dirname(rootfs) == path
        config["root"] = {
            "path": os.path.basename(rootfs) if inside else rootfs,
            "readonly": False,
        }
        config["process"]["terminal"] = False

    return bundle.change(change)


def make_rootless(config: Config, uid: int, gid: int) -> None:
    """Make of a regular configuration what ``runc spec --rootless`` writes."""
    linux = config["linux"]
    linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "network"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = [{"containerID": 0, "hostID": uid, "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": gid, "size": 1}]
    linux.pop("resources", None)
    for mount in config["mounts"]:
        if mount["type"] == "devpts":
            mount["options"] = [option for option in mount["options"] if option != "gid=5"]
        if mount["type"] == "sysfs":
            mount.update(type="none", source="/sys")
            mount["options"] = ["rbind", "nosuid", "noexec", "nodev", "ro"]
