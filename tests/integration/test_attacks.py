"""Paths that mean something else to whoever resolves them: real root's answers, and no others.

The host's user owns canaries outside of the containers. After each batch of calls they are what
they were, and nothing that a container saw was one of them, or a descriptor of the agent's.
``RUNROOTLESS_TEST_ATTACKS`` is a number of generated examples, for long runs by hand.
"""

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import attacks
from support.attack_paths import DIRECTORIES, generated_calls
from support.attack_sides import VARIANTS, Roots, Sides, both_sides
from support.attacks import Batch, Call, fill
from support.canaries import Canaries
from support.containers import Runrootless
from support.drivers import put_driver
from support.trees import Tree, Trees, debian_archive
from support.users import AS_ROOT, Unprivileged

DRIVER = Path(__file__).with_name("attack_driver.py")
EXAMPLES = int(os.environ.get("RUNROOTLESS_TEST_ATTACKS", "25"))
# Without that variable each call is tried with a part of the paths, each with another part.
WHOLE = "RUNROOTLESS_TEST_ATTACKS" in os.environ

pytestmark = [
    pytest.mark.skipif(not AS_ROOT, reason="the oracle is a chroot of the real root"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's"),
]


@pytest.fixture(scope="module")
def canaries(session_user: Unprivileged) -> Canaries:
    return Canaries.make(session_user, f"{session_user.home}/canaries")


def copy_programs(tree: str, root: str) -> None:
    """Copy a tree without what is large and which no program here takes."""
    names = [name for name in os.listdir(tree) if name not in ("usr", "var")]
    names += [f"usr/{name}" for name in os.listdir(f"{tree}/usr") if name != "share"]
    os.mkdir(root, 0o755)
    subprocess.run(["cp", "-a", "--parents", *names, root], cwd=tree, check=True)


@pytest.fixture(scope="module")
def roots(trees: Trees, session_user: Unprivileged) -> Iterator[Roots]:
    tree = Tree(debian_archive("tools"), trees)
    made = []
    for form, for_user in ((tree.oracle, False), (tree.rootless, True)):
        directory = trees.new_directory("attacks", for_user=for_user)
        root = f"{directory}/rootfs"
        copy_programs(form, root)
        made_here = [root, *put_driver(DRIVER, root), f"{root}/hostproc"]
        os.mkdir(f"{root}/hostproc")
        for path in made_here if for_user else ():
            session_user.give(path)
        made.append((directory, root))
    yield Roots(made[0][1], made[1][1], made[1][0])
    for directory, _ in made:
        trees.discard(directory)


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
