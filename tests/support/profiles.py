"""The seccomp profiles that podman and Docker give containers, as Debian's packages have them."""

import glob
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Collection
from typing import Any

from support.trees import cache_directory

# Package, and the path in it. They are unpacked, not installed: one of them is nothing but
# source code, with dozens of packages that it depends on.
PROFILES = {
    "podman": ("golang-github-containers-common", "usr/share/containers/seccomp.json"),
    "docker": (
        "golang-github-docker-docker-dev",
        "usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json",
    ),
}
_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

Profile = dict[str, Any]


def default_profile(name: str, capabilities: Collection[str]) -> Profile:
    """Return a profile of ``PROFILES`` as it is in config.json of a container.

    ``capabilities`` are those of the container's bounding set: some rules depend on them.
    """
    with open(_file(*PROFILES[name])) as file:
        template: Profile = json.load(file)
    machine = _GO_ARCHITECTURES[os.uname().machine]
    profile: Profile = {"defaultAction": template["defaultAction"]}
    if "defaultErrnoRet" in template:
        profile["defaultErrnoRet"] = template["defaultErrnoRet"]
    profile["architectures"] = [
        architecture
        for entry in template["archMap"]
        if entry["architecture"] == _native(machine)
        for architecture in (entry["architecture"], *(entry.get("subArchitectures") or ()))
    ]
    profile["syscalls"] = [
        {key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)}
        for rule in template["syscalls"]
        if _applies(rule, machine, set(capabilities))
    ]
    return profile


def _native(machine: str) -> str:
    return {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[machine]


def _applies(rule: dict[str, Any], machine: str, capabilities: set[str]) -> bool:
    """Return whether a rule is one for this machine and container: Docker's setupSeccomp."""
    excludes, includes = rule.get("excludes") or {}, rule.get("includes") or {}
    if machine in (excludes.get("arches") or ()) or capabilities & set(excludes.get("caps") or ()):
        return False
    if includes.get("arches") and machine not in includes["arches"]:
        return False
    kernel = [int(part) for part in (includes.get("minKernel") or "0.0").split(".")]
    if kernel > [int(part) for part in platform.release().split("-")[0].split(".")[:2]]:
        return False
    return set(includes.get("caps") or ()) <= capabilities


def _file(package: str, path: str) -> str:
    """Return the path of a file of a Debian package, fetched at the first call."""
    directory = os.path.join(cache_directory(), package)
    found = os.path.join(directory, path)
    if not os.path.exists(found):
        with tempfile.TemporaryDirectory() as download:
            _run(["apt-get", "-qq", "download", package], download)
            (archive,) = glob.glob(f"{download}/*.deb")
            _run(["dpkg-deb", "--extract", archive, directory], download)
    return found


def _run(command: list[str], cwd: str) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
