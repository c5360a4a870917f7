"""Paths that mean something else to whoever resolves them: real root's answers, and no others.

The host's user owns canaries outside of the containers. After each batch of calls they are what
they were, and nothing that a container saw was one of them, or a descriptor of the agent's.
``RUNROOTLESS_TEST_ATTACKS`` is a number of generated examples, for long runs by hand.
"""

import json
import os
import re
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
    unseen: dict[attacks.Identity, str]

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
        if attacks.is_the_hosts(name, kinds, user, *errors):
            return True
        if name in attacks.VIEW_CALLS:
            # A container's root is a locked mount, which is said first.
            return bool(kinds) or (name == "pivot_root" and errors == ("EBUSY", "EINVAL"))
        # Unless the runtime's libseccomp knows the name.
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


def every_path(first: int) -> list[str]:
    """Return paths, each of which makes a new file of its own."""
    paths = [*attacks.ways_to([*Canaries.NAMES, "made", "open/made"]), *attacks.FILES]
    paths += attacks.OF_HOST
    return [path.replace("made", f"made{number}") for number, path in enumerate(paths, first)]


def its_turn(name: str, number: int, part: int) -> bool:
    """Return whether a call is tried with the path of a number: one of so many."""
    return WHOLE or (number + sum(name.encode())) % part == 0


def with_every_path(name: str, user: int, part: int, first: int = 0) -> list[Call]:
    """Return a call with all paths and flags, the descriptor being the working directory."""
    tries = attacks.PATH_CALLS[name]
    return [
        [name, fill(arguments, "cwd", path)]
        for number, path in enumerate(every_path(first))
        for which, arguments in enumerate(tries)
        # Each path with some of the arguments, which all have their turn.
        if (number + which) % len(tries) == 0
        and its_turn(name, number // len(tries), part)
        and not attacks.is_the_kernels(name, path, user)
        and not (user and attacks.is_not_checked(name, arguments))
        and not (name.startswith("execve") and number % 5)
        # The components of long paths are checked one by one.
        and not (user and "{pad" in path and (number + len(name)) % 3)
    ]


CALLERS = (
    ("notify", 0), ("notify", 33), ("thorough", 33), ("host-pids", 0), ("emulate", 0),
)  # fmt: skip
MANY = 10


def part_of(variant: str) -> int:
    """Return what part of its paths each call is tried with, one of so many."""
    return 3 if variant == "notify" else 9


def groups(variant: str, size: int) -> list[list[str]]:
    """Return the calls that are tried together, so many in one batch.

    What the kernel may carry out without a check, alone, would change what others find.
    """
    known = attacks.calls_with_paths(VARIANTS[variant].checks)
    names = [name for name in attacks.PATH_CALLS if name in known]
    alone = [[name] for name in names if name in attacks.BY_NUMBER]
    names = [name for name in names if name not in attacks.BY_NUMBER]
    return [names[first : first + size] for first in range(0, len(names), size)] + alone


CASES = [
    (variant, user, names)
    for variant, user in CALLERS
    for names in groups(variant, 1 if variant == "notify" else MANY)
]


def test_every_intercepted_call_with_a_path_is_tried() -> None:
    """A new row of the table is tried, or said to take no path."""
    tried = [*attacks.PATH_CALLS, *attacks.VIEW_CALLS]
    assert sorted(attacks.calls_with_paths(True)) == sorted(tried)
    assert {name for _, _, names in CASES for name in names} == attacks.PATH_CALLS.keys()


@pytest.mark.parametrize(
    ("variant", "user", "names"), CASES, ids=[f"{v}-{u}-{n[0]}" for v, u, n in CASES]
)
def test_every_way_with_every_call(
    sides_of: Callable[[str], Sides], variant: str, user: int, names: list[str]
) -> None:
    sides = sides_of(variant)
    calls: list[Call] = []
    for number, name in enumerate(names):
        calls += with_every_path(name, user, part_of(variant), 1000 * number)
    sides.assert_same(Batch(calls, user=user))


def numbered(
    calls: Iterable[tuple[str, Sequence[Any], str, str]], user: int, cwd: str = "cwd"
) -> list[Call]:
    """Return calls with directory descriptors and paths, each new file with a name of its own."""
    filled: list[Call] = [
        [name, fill(arguments, directory, path.replace("made", f"made{number}"))]
        for number, (name, arguments, directory, path) in enumerate(calls)
        if not (user and directory == "below")
    ]
    return [call for call in filled if not is_skipped(call, user, cwd)]


def is_skipped(call: Call, user: int, cwd: str) -> bool:
    """Return whether no engine emulates, or checks, what becomes of a call."""
    at = next((one[1] for one in call[1] if isinstance(one, list) and one[0] == "fd"), "cwd")
    at = cwd if at == "cwd" else at
    paths = attacks.paths_of(call)
    return bool(user and attacks.is_not_checked(*call)) or any(
        attacks.is_the_kernels(call[0], path, user, at) for path in paths
    )


PLACES = (*attacks.RELATIVE, *attacks.RELATIVE_OF_HOST)


@pytest.mark.parametrize(("variant", "user"), CALLERS)
def test_directory_descriptors(sides_of: Callable[[str], Sides], variant: str, user: int) -> None:
    sides = sides_of(variant)
    for names in groups(variant, MANY):
        calls = [
            (name, arguments, *place)
            for name in names
            if any(attacks.D in arguments for arguments in attacks.PATH_CALLS[name])
            for number, place in enumerate(PLACES)
            for which, arguments in enumerate(attacks.PATH_CALLS[name])
            if (number + which) % max(1, len(attacks.PATH_CALLS[name]) // 2) == 0
            and its_turn(name, number, part_of(variant) // 3)
        ]
        sides.assert_same(Batch(numbered(calls, user), user=user))


@pytest.mark.parametrize(("variant", "user"), CALLERS)
def test_working_directories(sides_of: Callable[[str], Sides], variant: str, user: int) -> None:
    sides = sides_of(variant)
    known = attacks.calls_with_paths(sides.variant.checks)
    for cwd in sorted({directory for directory, _ in PLACES} - set(attacks.NO_DIRECTORIES)):
        calls = [
            (name, tries[0], "cwd", path)
            for name, tries in attacks.PATH_CALLS.items()
            for number, (directory, path) in enumerate(PLACES)
            if its_turn(name, number, part_of(variant))
            if directory == cwd and name in known and not (user and cwd == "below")
            if name not in attacks.BY_NUMBER
            if not name.startswith("execve") or cwd == "self"
        ]
        sides.assert_same(Batch(numbered(calls, user, cwd), cwd=cwd, user=user))


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
    cwd = data.draw(DIRECTORIES.filter(lambda one: one not in attacks.NO_DIRECTORIES))
    calls = data.draw(st.lists(generated_calls(sides.variant.checks), min_size=1, max_size=12))
    # With a user, what the kernel may carry out without a check would change what others find.
    calls = [
        call
        for call in calls
        if not is_skipped(call, user, cwd) and not (user and call[0] in attacks.BY_NUMBER)
    ]
    sides.assert_same(Batch(calls, cwd, user, thread=data.draw(st.booleans())))


def viewing(name: str, path: str) -> list[Call]:
    """Return calls that change what a process sees, and what it sees then."""
    if name == "chroot":
        looks = ["/", "/made", "/self", "/../f", "f", "../..{canary}/secret"]
    else:
        looks = [path, f"{path}/made", "f", "/proc/self/cwd/f", "/proc/self/../..{canary}/secret"]
    calls = [[name, fill(arguments, "cwd", path)] for arguments in attacks.VIEW_CALLS[name]]
    if name not in ("mount", "chroot"):
        calls = [["mount", fill(attacks.TMPFS, "cwd", path)], *calls]
    return calls + [["stat", [["path", look], attacks.B]] for look in looks]


def viewed(name: str) -> list[str]:
    """Return paths that a call is tried with.

    Root may not mount over what the runtime has mounted, the root included: not those.
    """
    ways = attacks.WAYS[::2]
    return [*(ways if name == "chroot" else [f"{way}/tmp" for way in ways]), *VIEWED]


@pytest.mark.parametrize("name", attacks.VIEW_CALLS)
def test_calls_that_change_what_is_seen(sides_of: Callable[[str], Sides], name: str) -> None:
    """Each path with a process, and a mount namespace, of its own."""
    sides = sides_of("views")
    lines = []
    for path in viewed(name):
        batch = Batch(viewing(name, path), unshare=name != "chroot")
        lines += [f"{path}: {line}" for line in sides.differences(batch)]
    assert not lines, f"{len(lines)} differences:\n" + "\n".join(lines[:60])


VIEWED = [
    path
    for path in attacks.FILES
    if "pad" not in path
    and path.endswith(("}", "d", "cwd", "root", "self", "fd", "/", "k40", "c40"))
]
