"""Paths and files that change while the agent is at work on them.

``RUNROOTLESS_TEST_RACES`` is how often it is tried, for long runs by hand.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

from conftest import MakeBundle
from runrootless.emulation.paths.stand_ins import LIMIT
from support.agents import SUPERVISOR, WORKER
from support.canaries import Canaries
from support.containers import Runrootless
from support.processes import eventually, read_line
from support.programs import compile_program
from support.users import AS_ROOT, Unprivileged

PROBE = Path(__file__).with_name("probes") / "races.c"
TRIES = int(os.environ.get("RUNROOTLESS_TEST_RACES", "100000"))
CALLERS = [("notify", 0), ("notify", 33), ("thorough", 33)]
EACH = TRIES // len(CALLERS)
PLACE = "/srv/races"
# Directories in which sockets are about to be made, by users: as many are held at most.
EXPECTED = 64
GROWTH = 4096
"""Kilobytes by which an agent may grow that has answered as many calls before."""

# What the kernel may say of such paths, whatever is exchanged for what at which moment.
ALWAYS = {"0", "ENOENT", "ENOTDIR", "ELOOP"}
MAKES = {*ALWAYS, "EEXIST", "EACCES", "EPERM"}
OPENS = {*ALWAYS, "EISDIR", "ENXIO", "EACCES", "EPERM", "EBADF", "EOPNOTSUPP", "ENODEV"}
# What is behind a descriptor may have been a procfs, which makes no files.
POSSIBLE = {
    "stat": ALWAYS,
    "lstat": ALWAYS,
    "statx": ALWAYS,
    "newfstatat": {*ALWAYS, "EBADF"},
    "chown": {*ALWAYS, "EPERM"},
    "fchownat": {*ALWAYS, "EPERM", "EBADF"},
    "mknod": MAKES,
    "mkdir": MAKES,
    "symlink": MAKES,
    "open": OPENS,
    "creat": OPENS,
    "openat": OPENS,
    "setxattr": {*ALWAYS, "EPERM", "EOPNOTSUPP"},
    "getxattr": {*ALWAYS, "ENODATA", "EOPNOTSUPP"},
    "bind": {*MAKES, "EADDRINUSE", "EINVAL"},
    "execve": {*ALWAYS, "EACCES", "ENOEXEC", "EPERM"},
}


@dataclass(frozen=True)
class Agents:
    """What the agents of a user hold."""

    processes: frozenset[int]
    descriptors: tuple[str, ...]
    kilobytes: int


def names(directory: Path) -> list[str]:
    """Return what the descriptors in a directory of procfs are open for."""
    return [os.readlink(directory / name) for name in os.listdir(directory)]


def agents(user: Unprivileged) -> Agents:
    """Return what all agents of the user hold together, and which they are."""
    found = []
    for process in user.account.processes():
        base = Path(f"/proc/{process.pid}")
        try:
            if (base / "comm").read_text().rstrip() in (SUPERVISOR, WORKER):
                lines = (base / "status").read_text().splitlines()
                memory = next(line for line in lines if line.startswith("VmRSS:"))
                found.append((process.pid, names(base / "fd"), int(memory.split()[1])))
        except OSError:
            continue
    assert len(found) == len((SUPERVISOR, WORKER))
    processes, descriptors, kilobytes = zip(*found, strict=True)
    return Agents(frozenset(processes), tuple(sorted(chain(*descriptors))), sum(kilobytes))


def settled(user: Unprivileged) -> Agents:
    """Return what the agents hold when they hold the same twice."""

    def twice() -> Agents | None:
        one = agents(user)
        return one if one == agents(user) else None

    found = eventually(twice, "the agents have nothing to do")
    assert found
    return found


@pytest.fixture
def canaries(unprivileged: Unprivileged) -> Canaries:
    return Canaries.make(unprivileged, f"{unprivileged.home}/canaries")


def outcomes(lines: Iterator[str]) -> tuple[dict[str, set[str]], int]:
    """Read the probe's counts: the outcomes of each call, and how many calls there were."""
    found: dict[str, set[str]] = {}
    total = 0
    for line in lines:
        name, outcome, number = line.split()
        found.setdefault(name, set()).add(outcome)
        total += int(number)
    return found, total


@pytest.mark.skipif(not AS_ROOT, reason="only root looks at the agent")
@pytest.mark.parametrize(("engine", "user"), CALLERS)
def test_races(
    engine: str,
    user: int,
    bundle: MakeBundle,
    unprivileged: Unprivileged,
    canaries: Canaries,
) -> None:
    before = canaries.describe()
    program = compile_program(
        PROBE.read_text(), f"{unprivileged.session}/races", ["-static", "-pthread"]
    )
    mount = {"destination": "/dev/races", "type": "bind", "source": program, "options": ["bind"]}
    numbers = [f"{device}:{inode}" for device, inode in canaries.identities()]
    command = ["/dev/races", PLACE, str(EACH), canaries.directory, *numbers]
    if user:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    script = 'chmod 1777 /srv; exec "$@"'
    # Owners of whatever the paths lead to are changed, the root included.
    ours = bundle(whole=True).set(["sh", "-c", script, "sh", *command])
    srv = {"destination": "/srv", "type": "tmpfs", "source": "tmpfs"}
    ours.change(lambda config: config["mounts"].extend([srv, mount]))
    runrootless = Runrootless(unprivileged, ["--engine", engine])
    process = unprivileged.start(
        runrootless.command("run", "--bundle", ours.path, runrootless.new_id()),
        stdin=subprocess.PIPE,
    )
    assert process.stdin and process.stdout
    try:
        assert read_line(process, 60) == "warm\n"
        warm = settled(unprivileged)
        process.stdin.write("\n")
        process.stdin.flush()
        lines = list(iter(process.stdout.readline, "end\n"))
        assert lines and "" not in lines, f"the probe ended: {process.communicate()}"
        found, total = outcomes(iter(lines[:-1]))
        done = settled(unprivileged)
        output, errors = process.communicate("\n", timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, output, errors) == (0, "", "")
    print("".join(lines))
    assert lines[-1] == "seen 0 wrong 0 answered 1\n"
    assert total == EACH // 3 * 3
    impossible = {name: found[name] - POSSIBLE[name] for name in found}
    assert not {name: some for name, some in impossible.items() if some}
    assert found.keys() == POSSIBLE.keys()
    assert canaries.describe() == before
    assert done.processes == warm.processes
    descriptors = warm.descriptors, done.descriptors
    assert len(done.descriptors) <= len(warm.descriptors) + EXPECTED + 2 * LIMIT, descriptors
    assert done.kilobytes <= warm.kilobytes + GROWTH
