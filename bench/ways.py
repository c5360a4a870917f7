"""The ways to run a command in a root file system, which the benchmarks compare.

Each is a command line of a user without privileges, but for the real root's.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.stage import COMMAND, Stage
from support.bundles import Bundle
from support.containers import Runrootless
from support.processes import Result

_REASON = re.compile(r"cannot|denied|error|fail|invalid|not permitted|refused", re.IGNORECASE)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The user's own, in which the kernel shows them as root: what fakeroot needs for a chroot.
_CHROOT = """
mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && root=$0 && exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Place:
    """A root file system and the directory that it is in, which is that of its bundle."""

    directory: str
    root: str


class Way:
    """One of them. ``program`` has to be installed, and its --help to name ``option``, if any."""

    def __init__(self, name: str, program: str, option: str = "") -> None:
        self.name = name
        self.program = program
        self._option = option

    def command(self, here: Stage, place: Place, words: Sequence[str]) -> list[str]:
        """Return what the user types to run a command to its end."""
        raise NotImplementedError

    def environment(self, here: Stage) -> Mapping[str, str]:
        """Return what is in the environment besides the user's own."""
        return {}

    def place(self, here: Stage, archive: str) -> Place:
        """Return a fresh copy of the tree."""
        return Place(*here.rootless_copy(archive))

    def run(self, here: Stage, place: Place, words: Sequence[str], timeout: float) -> Result:
        """Run a command to its end."""
        command = self.command(here, place, words)
        return here.user.run(command, env=self.environment(here), timeout=timeout)

    def is_there(self, here: Stage) -> bool:
        """Return whether it is installed, and new enough."""
        path = shutil.which(self.program)
        if path is None or not self._option:
            return path is not None
        return self._option in here.user.run([path, "--help"], timeout=60).stdout


class RealRoot(Way):
    """What all others are compared with: the real root in a chroot."""

    def place(self, here: Stage, archive: str) -> Place:
        """Return a fresh copy of the tree, with the owners that it should have."""
        return Place(*here.oracle_copy(archive))

    def run(self, here: Stage, place: Place, words: Sequence[str], timeout: float) -> Result:
        """Run a command to its end."""
        return here.chroot(place.root, words, timeout)


class Runtime(Way):
    """One that has containers which go on, and ``exec`` in them."""

    def __init__(self, name: str, words: Sequence[str], *, emulates: bool) -> None:
        super().__init__(name, words[0])
        self.words = list(words)
        self.emulates = emulates

    def _bundle(self, here: Stage, place: Place, words: Sequence[str]) -> Bundle:
        if self.emulates:
            bundle = Bundle(place.directory, place.root)
            if not os.path.exists(bundle.config_path):
                return here.bundle(place.directory, place.root, words)
        else:
            bundle = Bundle(os.path.join(place.directory, "rootless"), place.root)
            if not os.path.exists(bundle.config_path):
                os.makedirs(bundle.path, exist_ok=True)
                here.user.give(bundle.path)
                rootless_bundle(here, bundle.path, place.root)
        return bundle.set(words)

    def command(self, here: Stage, place: Place, words: Sequence[str]) -> list[str]:
        """Return what the user types to run a command to its end."""
        bundle = self._bundle(here, place, words)
        return [*self.words, "run", "--bundle", bundle.path, Runrootless.new_id()]

    def start(self, here: Stage, place: Place, name: str) -> list[str]:
        """Return what starts a container that goes on until it is deleted."""
        bundle = self._bundle(here, place, ["sleep", "infinity"])
        return [*self.words, "run", "--detach", "--bundle", bundle.path, name]

    def execute(self, name: str, words: Sequence[str]) -> list[str]:
        """Return what runs a command in it."""
        return [*self.words, "exec", name, *words]

    def delete(self, name: str) -> list[str]:
        """Return what ends and deletes it."""
        return [*self.words, "delete", "--force", name]


class Podman(Runtime):
    """podman with a root file system, and no image that would have to be unpacked."""

    def command(self, here: Stage, place: Place, words: Sequence[str]) -> list[str]:
        """Return what the user types to run a command to its end."""
        return [*self.words, "run", "--rm", "--network=host", "--rootfs", place.root, *words]

    def start(self, here: Stage, place: Place, name: str) -> list[str]:
        """Return what starts a container that goes on until it is deleted."""
        options = ["run", "--detach", "--network=host", f"--name={name}", "--rootfs"]
        return [*self.words, *options, place.root, "sleep", "infinity"]

    def delete(self, name: str) -> list[str]:
        """Return what ends and deletes it."""
        return [*self.words, "rm", "--force", "--time=0", name]


def rootless_bundle(here: Stage, directory: str, rootfs: str) -> None:
    """Write the bundle that runrootless derives, but for the emulation, without its help."""
    here.user.run(["runc", "spec", "--rootless"], cwd=directory).check()
    path = os.path.join(directory, "config.json")
    with open(path) as file:
        config: dict[str, Any] = json.load(file)
    config["root"] = {"path": rootfs, "readonly": False}
    config["process"].update(args=["/bin/true"], terminal=False)
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        options = ["bind", "nosuid", "noexec", "nodev", "ro"]
        config["mounts"].append(
            {"destination": name, "type": "bind", "source": name, "options": options}
        )
    with open(path, "w") as file:
        json.dump(config, file, indent="\t")


class PRoot(Way):
    """PRoot, which needs no runtime and no namespaces."""

    def command(self, here: Stage, place: Place, words: Sequence[str]) -> list[str]:
        """Return what the user types to run a command to its end."""
        return [self.program, "-S", place.root, "-w", "/", *words]

    def environment(self, here: Stage) -> Mapping[str, str]:
        """Return what is in the environment besides the user's own."""
        # It shows the host's /tmp in the container, and in it the user's own.
        return {"HOME": "/root", "PATH": PATH, "PROOT_TMP_DIR": here.user.home}


class Fakeroot(Way):
    """fakeroot in a chroot, in a user namespace with one ID."""

    def command(self, here: Stage, place: Place, words: Sequence[str]) -> list[str]:
        """Return what the user types to run a command to its end."""
        command = ["unshare", "--user", "--map-root-user", "--mount", "--propagation=slave"]
        return [*command, "sh", "-c", _CHROOT, place.root, self.program, *words]

    def environment(self, here: Stage) -> Mapping[str, str]:
        """Return what is in the environment besides the user's own."""
        # It takes EPERM for success, but for an ID that the namespace does not have it is EINVAL.
        return {"FAKEROOTDONTTRYCHOWN": "1"}


class ChRun(Way):
    """Charliecloud's ``ch-run``, with an option, if any."""

    def command(self, here: Stage, place: Place, words: Sequence[str]) -> list[str]:
        """Return what the user types to run a command to its end."""
        options = [self._option] if self._option else []
        options += ["--write", "--uid=0", "--gid=0"]
        return [self.program, *options, place.root, "--", *words]


def engine(options: str, name: str = "") -> Runtime:
    """Return runrootless with an engine, and with options after it, separated by spaces."""
    return Runtime(name or options, [COMMAND, "--engine", *options.split()], emulates=True)


def _podman() -> Podman:
    options = ["--cgroup-manager=cgroupfs", f"--runtime={shutil.which('runc')}"]
    return Podman("podman", ["podman", *options], emulates=False)


def _older() -> Runtime:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "older_kernel.py")
    return Runtime("as on Linux 5.14", [sys.executable, path, "--engine", "notify"], emulates=True)


REAL_ROOT = RealRoot("real root", "unshare")
RUNC = Runtime("runc alone", ["runc"], emulates=False)
CRUN = Runtime("crun alone", ["crun"], emulates=False)
OLDER = _older()
PROOT = PRoot("PRoot", "proot")
PODMAN = _podman()
OTHERS = (
    PROOT,
    Fakeroot("fakeroot", "fakeroot"),
    PODMAN,
    ChRun("ch-run", "ch-run"),
    ChRun("ch-run --seccomp", "ch-run", "--seccomp"),
)


def installed(here: Stage, ways: Iterable[Way]) -> list[Way]:
    """Return those of the ways that this machine has."""
    return [way for way in ways if way.is_there(here)]


def reason(result: Result, place: Place) -> str:
    """Return the line in which a command that failed says why, and its exit code."""
    said = (result.stderr.strip() or result.stdout.strip() or "no output").splitlines()
    # podman warns first that the user has no subordinate IDs.
    said = [line for line in said if "no subuid ranges" not in line] or said
    # The last one may only say that there has been an error.
    found = [line for line in said if _REASON.search(line)] or said[-1:]
    return f"{found[0].strip().replace(place.root, '')} ({result.returncode})"
