"""What programs see in a container, compared with what the real root's programs see.

Each case is a script that is run by the real root in a plain chroot and in a
container of a user without privileges; every line must be the same. The cases
are in the files beside this one, each under a line ``### name (sh or python)``.
Those of a file share one chroot and one container, and have a directory each.
Python scripts begin with what ``support.oracle.PRELUDE`` defines.
"""

import glob
import os

import pytest
from _pytest.mark import ParameterSet

from conftest import MakeDifferential
from support.containers import FAST, Runrootless
from support.oracle import Differential, read_cases
from support.pythons import Installed
from support.users import Unprivileged

CASES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases")
GROUPS = {
    os.path.basename(path).removesuffix(".cases"): read_cases(path)
    for path in sorted(glob.glob(f"{CASES}/*.cases"))
}

# With the fast path, those about what it answers; by hand all.
FAST_GROUPS = (
    "access_lists", "capabilities", "credentials", "host_files", "metadata", "mounts", "nodes",
    "ownership", "read_only", "set_id_bits", "tools",
)  # fmt: skip
EVERY_GROUP_FAST = bool(FAST)


def parameters(*groups: str, thorough: bool = False) -> list[ParameterSet]:
    return [
        pytest.param(
            group,
            case.name,
            id=f"{group}-{case.name}",
            # Strict: when it is the same one day, it is a limit no more.
            marks=pytest.mark.xfail(strict=True, reason=case.limit)
            if case.limit and not (thorough and case.lifted)
            else (),
        )
        for group in groups
        for case in GROUPS[group].values()
    ]


@pytest.mark.parametrize(("group", "case"), parameters(*GROUPS))
def test_same_as_the_real_root(group: str, case: str, differential: Differential) -> None:
    differential.assert_same(group, GROUPS[group], case)


@pytest.mark.parametrize(("group", "case"), parameters("credentials"))
def test_same_as_the_real_root_with_crun(
    group: str, case: str, differential_with_crun: Differential
) -> None:
    """What differs between the runtimes is how processes start: who they are, and may be."""
    differential_with_crun.assert_same(group, GROUPS[group], case)


@pytest.mark.parametrize(
    ("group", "case"), parameters(*(GROUPS if EVERY_GROUP_FAST else FAST_GROUPS))
)
def test_same_as_the_real_root_with_the_fast_path(
    group: str, case: str, differential_with_fast_path: Differential
) -> None:
    differential_with_fast_path.assert_same(group, GROUPS[group], case)


@pytest.mark.parametrize(("group", "case"), parameters(*GROUPS, thorough=True))
def test_same_as_the_real_root_with_the_engine_thorough(
    group: str, case: str, differential_of_thorough: Differential
) -> None:
    differential_of_thorough.assert_same(group, GROUPS[group], case)


@pytest.fixture(scope="module")
def differential_of_pythons(
    make_differential: MakeDifferential, session_user: Unprivileged
) -> Differential:
    return make_differential(Runrootless(session_user))


@pytest.fixture
def differential_of_python(
    differential_of_pythons: Differential, python: Installed, session_user: Unprivileged
) -> Differential:
    """The versions share one tree: a copy of it takes longer than the cases."""
    ours = differential_of_pythons.ours
    if ours.runrootless.program != python.command:
        ours.runrootless = Runrootless(session_user, [], python.command)
        ours.forget()
    return differential_of_pythons


# Files, descriptors that are passed, and calls that wait. Others are not the interpreter's.
@pytest.mark.parametrize("group", ["messages"])
def test_same_as_the_real_root_with_other_pythons(
    group: str, differential_of_python: Differential
) -> None:
    cases = GROUPS[group]
    for name, case in cases.items():
        if not case.limit:
            differential_of_python.assert_same(group, cases, name)
