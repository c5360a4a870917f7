"""Paths that mean something else to whoever resolves them: real root's answers, and no others.

The host's user owns canaries outside of the containers. After each batch of calls they are what
they were, and nothing that a container saw was one of them, or a descriptor of the agent's.
``RUNROOTLESS_TEST_ATTACKS`` is a number of generated examples, for long runs by hand.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import attacks
from support.attack_paths import DIRECTORIES, generated_calls
from support.attacks import Batch, Call, Canaries, fill
from support.bundles import ADMINISTRATOR
from support.containers import Runrootless
from support.drivers import Driver
from support.oracle import CHROOT, ENVIRONMENT
from support.trees import Tree, Trees, debian_archive
from support.users import AS_ROOT, Unprivileged

DRIVER = Path(__file__).with_name("attack_driver.py")
EXAMPLES = int(os.environ.get("RUNROOTLESS_TEST_ATTACKS", "25"))
# Without that variable each call is tried with a third of the paths, each with another third.
WHOLE = "RUNROOTLESS_TEST_ATTACKS" in os.environ

pytestmark = [
    pytest.mark.skipif(not AS_ROOT, reason="the oracle is a chroot of the real root"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's"),
]

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


def alike(call: Call, user: int, theirs: Any, here: Any) -> bool:
    """Return whether two errors are equally right.

    In which order the kernel looks at an attribute's name and at who asks for it depends on
    the user namespace in which the file system is mounted; a procfs looks for a name before
    it looks at who may make it.
    """
    refused = {"EACCES", "EPERM", "ENOTSUP"}
    if user:
        refused |= {"ENOENT", "EXDEV"}
    elif "xattr" not in call[0] and call[0] not in attacks.OPENING:
        return False
    errors = [one[-1] if isinstance(one, list) and one else one for one in (theirs, here)]
    return all(isinstance(error, str) and error in refused for error in errors)


@dataclass
class Sides:
    """Real root's driver, a container's, and what neither may see or touch."""

    variant: Variant
    oracle: Driver
    ours: Driver
    canaries: Canaries
    unseen: dict[attacks.Identity, str]

    def differences(self, batch: Batch) -> list[str]:
        """Return a line for each result that is not real root's, and for each file."""
        before = self.canaries.describe()
        message = batch.message(self.canaries.directory)
        expected, found = (driver.carry_out(message) for driver in (self.oracle, self.ours))
        after = self.canaries.describe()
        lines = [
            f"canary touched: {path}: {before.get(path)} -> {after.get(path)}"
            for path in before.keys() | after.keys()
            if before.get(path) != after.get(path)
        ]
        seen = {tuple(identity) for identity in found["seen"]}
        lines += [f"seen from inside: {self.unseen[one]}" for one in self.unseen.keys() & seen]
        return lines + self.unlike(batch, expected["same"], found["same"])

    def unlike(self, batch: Batch, expected: Any, found: Any) -> list[str]:
        """Return a line for each difference between what came of a batch on the two sides."""
        assert len(expected["results"]) == len(batch.calls), expected
        if not isinstance(found, dict) or len(found["results"]) != len(batch.calls):
            return [f"here: {found}"]
        lines: list[str] = []
        tolerated: set[str] = set()
        results = zip(batch.calls, expected["results"], found["results"], strict=True)
        for call, theirs, here in results:
            paths = attacks.paths_of(call)
            # What users may do to each other's files this engine does not check.
            unchecked = batch.user and not self.variant.checks
            if (unchecked and theirs in ("EACCES", "EPERM")) or self.is_the_kernels_own(call[0]):
                tolerated |= paths
            elif (
                theirs != here
                and not paths & tolerated
                and not alike(call, batch.user, theirs, here)
            ):
                lines.append(f"{attacks.describe(call)}: real root {theirs}, here {here}")
        for which in ("files", "outside"):
            if not tolerated:
                for one, other, whose in (
                    (expected, found, "only with real root"),
                    (found, expected, "only here"),
                ):
                    lines += [f"{whose}: {x}" for x in one[which] if x not in other[which]]
        return lines

    def is_the_kernels_own(self, name: str) -> bool:
        """Return whether a runtime's libseccomp may not know the name of a call."""
        return name in attacks.BY_NUMBER and self.variant.engine != "emulate"

    def assert_same(self, batch: Batch) -> None:
        lines = self.differences(batch)
        assert not lines, f"{len(lines)} differences, user {batch.user}:\n" + "\n".join(lines[:60])


@pytest.fixture(scope="module")
def canaries(session_user: Unprivileged) -> Canaries:
    return Canaries.make(session_user, f"{session_user.home}/canaries")


@dataclass(frozen=True)
class Roots:
    """A root file system of each form, with the driver in it."""

    oracle: str
    ours: str
    directory: str


@pytest.fixture(scope="module")
def roots(trees: Trees, session_user: Unprivileged) -> Iterator[Roots]:
    tree = Tree(debian_archive("tools"), trees)
    made = []
    for form, for_user in ((tree.oracle, False), (tree.rootless, True)):
        directory = trees.new_directory("attacks", for_user=for_user)
        root = trees.copy(form, f"{directory}/rootfs")
        Path(f"{root}/attack_driver.py").write_text(DRIVER.read_text())
        os.mkdir(f"{root}/hostproc")
        if for_user:
            session_user.give(f"{root}/attack_driver.py")
            session_user.give(f"{root}/hostproc")
        made.append((directory, root))
    yield Roots(made[0][1], made[1][1], made[1][0])
    for directory, _ in made:
        trees.discard(directory)


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


@pytest.fixture(scope="module")
def sides_of(
    session_user: Unprivileged, roots: Roots, canaries: Canaries
) -> Iterator[Callable[[str], Sides]]:
    """Return the sides of a variant, which are started when they are first asked for."""
    with ExitStack() as stack:

        @cache
        def sides_of(name: str) -> Sides:
            return stack.enter_context(both_sides(name, session_user, roots, canaries))

        yield sides_of
    Runrootless(session_user).assert_nothing_left()


def outside_of(user: Unprivileged, root: str) -> dict[attacks.Identity, str]:
    """Return what the agents hold that is not of the container: files, directories, pipes."""
    held = attacks.agents_descriptors(user)
    assert held
    return {
        identity: f"held by the agent: {name}"
        for identity, name in held.items()
        if not name.startswith((root, "anon_inode:", "/dev/", "mnt:", "user:", "pid:"))
        and name not in ("/", "/proc")
    }


def every_path() -> list[str]:
    """Return paths, each of which makes a new file of its own."""
    paths = [*attacks.ways_to([*Canaries.NAMES, "made", "open/made"]), *attacks.FILES]
    paths += attacks.OF_HOST
    return [path.replace("made", f"made{number}") for number, path in enumerate(paths)]


def its_turn(name: str, number: int) -> bool:
    """Return whether a call is tried with the path of a number."""
    return WHOLE or (number + sum(name.encode())) % 3 == 0


def with_every_path(name: str, user: int) -> list[Call]:
    """Return a call with all paths and flags, the descriptor being the working directory."""
    tries = attacks.PATH_CALLS[name]
    return [
        [name, fill(arguments, "cwd", path)]
        for number, path in enumerate(every_path())
        for which, arguments in enumerate(tries)
        # Each path with some of the arguments, which all have their turn.
        if (number + which) % len(tries) == 0
        and its_turn(name, number // len(tries))
        and not attacks.is_the_kernels(name, path, user)
        and not (user and attacks.is_not_checked(name, arguments))
        and not (name.startswith("execve") and number % 5)
        # The components of long paths are checked one by one.
        and not (user and "{pad" in path and (number + len(name)) % 3)
    ]


CALLERS = (
    ("notify", 0), ("notify", 33), ("thorough", 33), ("host-pids", 0), ("emulate", 0),
)  # fmt: skip
CASES = [
    (variant, user, name)
    for variant, user in CALLERS
    for name in attacks.PATH_CALLS
    if name in attacks.calls_with_paths(VARIANTS[variant].checks)
]


def test_every_intercepted_call_with_a_path_is_tried() -> None:
    """A new row of the table is tried, or said to take no path."""
    tried = [*attacks.PATH_CALLS, *attacks.VIEW_CALLS]
    assert sorted(attacks.calls_with_paths(True)) == sorted(tried)


@pytest.mark.parametrize(("variant", "user", "name"), CASES)
def test_every_way_with_every_call(
    sides_of: Callable[[str], Sides], variant: str, user: int, name: str
) -> None:
    sides = sides_of(variant)
    sides.assert_same(Batch(with_every_path(name, user), user=user))


def numbered(calls: Iterable[tuple[str, Sequence[Any], str, str]], user: int) -> list[Call]:
    """Return calls with directory descriptors and paths, each new file with a name of its own."""
    return [
        [name, fill(arguments, directory, path.replace("made", f"made{number}"))]
        for number, (name, arguments, directory, path) in enumerate(calls)
        if not attacks.is_the_kernels(name, path, user) and not (user and directory == "below")
    ]


@pytest.mark.parametrize(("variant", "user"), CALLERS)
def test_directory_descriptors(sides_of: Callable[[str], Sides], variant: str, user: int) -> None:
    sides = sides_of(variant)
    known = attacks.calls_with_paths(sides.variant.checks)
    for name, tries in attacks.PATH_CALLS.items():
        if name in known and any(attacks.D in arguments for arguments in tries):
            places = (*attacks.RELATIVE, *attacks.RELATIVE_OF_HOST)
            pairs = [
                (arguments, *place)
                for number, place in enumerate(places)
                for which, arguments in enumerate(tries)
                if (number + which) % max(1, len(tries) // 2) == 0
            ]
            calls = numbered(((name, *pair) for pair in pairs), user)
            sides.assert_same(Batch(calls, user=user))


@pytest.mark.parametrize(("variant", "user"), CALLERS)
def test_working_directories(sides_of: Callable[[str], Sides], variant: str, user: int) -> None:
    sides = sides_of(variant)
    known = attacks.calls_with_paths(sides.variant.checks)
    places = (*attacks.RELATIVE, *attacks.RELATIVE_OF_HOST)
    for cwd in sorted({directory for directory, _ in places} - set(attacks.NO_DIRECTORIES)):
        calls = [
            (name, tries[0], "cwd", path)
            for name, tries in attacks.PATH_CALLS.items()
            for number, (directory, path) in enumerate(places)
            if its_turn(name, number)
            if directory == cwd and name in known and not (user and cwd == "below")
            if not name.startswith("execve") or cwd == "self"
        ]
        sides.assert_same(Batch(numbered(calls, user), cwd=cwd, user=user))


@pytest.mark.parametrize("variant", VARIANTS)
@settings(
    max_examples=EXAMPLES,
    derandomize="CI" in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_generated_paths(
    sides_of: Callable[[str], Sides], variant: str, data: st.DataObject
) -> None:
    sides = sides_of(variant)
    user = data.draw(st.sampled_from((0, 33)))
    calls = data.draw(st.lists(generated_calls(sides.variant.checks), min_size=1, max_size=12))
    calls = [
        call
        for call in calls
        if not any(attacks.is_the_kernels(call[0], path, user) for path in attacks.paths_of(call))
        and not (user and attacks.is_not_checked(*call))
    ]
    cwd = data.draw(DIRECTORIES.filter(lambda one: one not in attacks.NO_DIRECTORIES))
    sides.assert_same(Batch(calls, cwd, user, thread=data.draw(st.booleans())))


def viewing(name: str, path: str) -> list[Call]:
    """Return calls that change what a process sees, and what it sees then."""
    if name == "chroot":
        looks = ["/", "/made", "/self", "/../f", "f", "../..{canary}/secret"]
    else:
        looks = [path, f"{path}/..", "f", "/proc/self/cwd/f", "/proc/self/../..{canary}/secret"]
    calls = [[name, fill(arguments, "cwd", path)] for arguments in attacks.VIEW_CALLS[name]]
    return calls + [["stat", [["path", look], attacks.B]] for look in looks]


@pytest.mark.parametrize("name", attacks.VIEW_CALLS)
def test_calls_that_change_what_is_seen(sides_of: Callable[[str], Sides], name: str) -> None:
    """Each path with a process, and a mount namespace, of its own."""
    sides = sides_of("views")
    lines = []
    for path in [*attacks.WAYS[::2], *VIEWED]:
        batch = Batch(viewing(name, path), unshare=name != "chroot")
        lines += [f"{path}: {line}" for line in sides.differences(batch)]
    assert not lines, "\n".join(lines)


VIEWED = [
    path
    for path in attacks.FILES
    if "pad" not in path
    and path.endswith(("}", "d", "cwd", "root", "self", "fd", "/", "k40", "c40"))
]
