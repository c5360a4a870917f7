"""Two drivers that make the same calls, as real root and in a container, and how they compare."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from support import attacks
from support.attacks import Batch, Call
from support.bundles import ADMINISTRATOR
from support.canaries import Canaries, Identity, agents_descriptors
from support.containers import Runrootless
from support.drivers import Driver
from support.oracle import CHROOT, ENVIRONMENT
from support.users import Unprivileged

PID = ("--pid", "--fork", "--kill-child")


@dataclass(frozen=True)
class Variant:
    """An engine, and whose process IDs the container has."""

    engine: str
    own_pids: bool

    @property
    def checks(self) -> bool:
        """Whether emulated users may only do what real ones may."""
        return self.engine == "thorough"


VARIANTS = {
    "notify": Variant("notify", True),
    "host-pids": Variant("notify", False),
    "thorough": Variant("thorough", True),
    "emulate": Variant("emulate", False),
    # Where a process has changed what it sees, all are looked at.
    "views": Variant("notify", True),
}


def oracle_command(root: str, name: str, own_pids: bool) -> list[str]:
    """Return what runs the driver in a chroot whose /hostproc is the caller's /proc."""
    unshare = ["unshare", "--mount", "--propagation=private", "--uts", "--ipc"]
    begin = ["sh", "-c", 'exec 9</proc && exec sh "$@"', "sh", CHROOT, root]
    return [*unshare, *(PID if own_pids else ()), *begin, *driver_command(name), "9"]


def driver_command(name: str) -> list[str]:
    return ["python3", "-S", "/attack_driver.py", name]


def error_of(result: Any) -> str:
    """Return the name of the error that a call returned, nothing where it succeeded."""
    if isinstance(result, list) and len(result) == 2 and result[0] == 126:
        result = result[1]
    return result if isinstance(result, str) and re.fullmatch("E[A-Z0-9]+", result) else ""


def names_of(call: Call) -> set[str]:
    """Return the new files that a call names, "" for files that were there before."""
    found = set()
    for path in attacks.paths_of(call):
        found |= set(re.findall(r"made\d*|linked|renamed", path)) or {""}
    return found


def is_touched(line: Any, touched: set[str]) -> bool:
    """Return whether what a driver says of files is of those in ``touched``."""
    found = re.findall(r"made\d*|linked|renamed", json.dumps(line))
    return bool(touched & set(found)) if found else "" in touched


@dataclass
class Sides:
    """Real root's driver, a container's, and what neither may see or touch."""

    variant: Variant
    oracle: Driver
    ours: Driver
    canaries: Canaries
    unseen: dict[Identity, str]

    def differences(self, batch: Batch) -> list[str]:
        """Return a line for each result that is not real root's, and for each file."""
        before = self.canaries.describe()
        where = self.canaries.directory
        expected = self.oracle.carry_out(batch.message(where, judges=True))
        found = self.ours.carry_out(batch.message(where))
        after = self.canaries.describe()
        lines = [
            f"canary touched: {path}: {before.get(path)} -> {after.get(path)}"
            for path in before.keys() | after.keys()
            if before.get(path) != after.get(path)
        ]
        seen = {tuple(identity) for identity in found["seen"]}
        lines += [f"seen from inside: {self.unseen[one]}" for one in self.unseen.keys() & seen]
        return lines + self.unlike(batch, expected, found["same"])

    def unlike(self, batch: Batch, answer: Any, found: Any) -> list[str]:
        """Return a line for each difference between what came of a batch on the two sides."""
        expected = answer["same"]
        assert len(expected["results"]) == len(batch.calls) == len(answer["hosts"]), expected
        if not isinstance(found, dict) or len(found["results"]) != len(batch.calls):
            return [f"here: {found}"]
        lines: list[str] = []
        touched: set[str] = set()
        results = zip(
            batch.calls, expected["results"], found["results"], answer["hosts"], strict=True
        )
        for call, theirs, here, kinds in results:
            if theirs == here or names_of(call) & touched:
                continue
            if not self.is_tolerated(call, batch.user, kinds, theirs, here):
                lines.append(f"{attacks.describe(call)}: real root {theirs}, here {here}")
            elif attacks.may_change(call[0]) and "" in (error_of(theirs), error_of(here)):
                touched |= names_of(call)
        for which in ("files", "outside"):
            for one, other, whose in (
                (expected, found, "only with real root"),
                (found, expected, "only here"),
            ):
                lines += [
                    f"{whose}: {x}"
                    for x in one[which]
                    if x not in other[which] and not is_touched(x, touched)
                ]
        return lines

    def is_tolerated(self, call: Call, user: int, kinds: list[str], theirs: Any, here: Any) -> bool:
        """Return whether the outcome of a call may differ from real root's.

        What users may do to each other's files ``notify`` does not check: then a call goes on,
        and may fail for what comes next.
        """
        name, errors = call[0], (error_of(theirs), error_of(here))
        if user and not self.variant.checks and errors[0] in ("EACCES", "EPERM"):
            return True
        if attacks.is_the_hosts(name, kinds, *errors):
            return True
        if name in attacks.VIEW_CALLS:
            # A container's root is a locked mount, which is said first.
            return bool(kinds) or (name == "pivot_root" and errors == ("EBUSY", "EINVAL"))
        # Unless the runtime's libseccomp knows the name.
        return name in attacks.BY_NUMBER and self.variant.engine != "emulate"

    def assert_same(self, batch: Batch) -> None:
        lines = self.differences(batch)
        assert not lines, f"{len(lines)} differences, user {batch.user}:\n" + "\n".join(lines[:60])


@dataclass(frozen=True)
class Roots:
    """A root file system of each form, with the driver in it."""

    oracle: str
    ours: str
    directory: str


def outside_of(user: Unprivileged, root: str) -> dict[Identity, str]:
    """Return what the agents hold that is not of the container: files, directories, pipes."""
    held = agents_descriptors(user)
    assert held
    return {
        identity: f"held by the agent: {name}"
        for identity, name in held.items()
        if not name.startswith((root, "anon_inode:", "/dev/", "mnt:", "user:", "pid:"))
        and name not in ("/", "/dev", "/proc")
    }


def container_command(user: Unprivileged, roots: Roots, name: str, variant: Variant) -> list[str]:
    """Return what runs the driver in a container or under ``emulate``."""
    if variant.engine == "emulate":
        variables = [f"{name}={value}" for name, value in {**ENVIRONMENT, "TTY_GID": ""}.items()]
        command = ["env", "-i", *variables, *oracle_command(roots.ours, name, False)]
        return Runrootless(user).command("emulate", "--", *command)
    runrootless = Runrootless(user, ["--engine", variant.engine])
    directory = f"{roots.directory}/{name}"
    os.mkdir(directory)
    user.give(directory)
    mount = {"destination": "/hostproc", "type": "bind", "source": "/proc"}

    def change(config: dict[str, Any]) -> None:
        config["mounts"].append({**mount, "options": ["bind", "ro"]})
        if not variant.own_pids:
            spaces = config["linux"]["namespaces"]
            config["linux"]["namespaces"] = [one for one in spaces if one["type"] != "pid"]

    bundle = runrootless.bundle_at(directory, roots.ours)
    bundle.set(driver_command(name)).change(change).add_capabilities(ADMINISTRATOR)
    return runrootless.command("run", "--bundle", bundle.path, runrootless.new_id())


@contextmanager
def both_sides(name: str, user: Unprivileged, roots: Roots, canaries: Canaries) -> Iterator[Sides]:
    """Start the drivers of the two sides, and see that they end."""
    variant = VARIANTS[name]
    oracle = subprocess.Popen(
        oracle_command(roots.oracle, name, variant.own_pids),
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=sys.stderr.fileno(),
        text=True,
    )
    command = container_command(user, roots, name, variant)
    ours = user.start(command, stdin=subprocess.PIPE, stderr=sys.stderr.fileno())
    drivers = Driver(oracle), Driver(ours)
    try:
        for driver in drivers:
            driver.carry_out(Batch([]).message(""))
        unseen = dict.fromkeys(canaries.identities(), "a canary")
        yield Sides(variant, *drivers, canaries, unseen | outside_of(user, roots.ours))
        for driver in drivers:
            driver.close()
    finally:
        for process in (oracle, ours):
            process.kill()
            process.wait()
