"""The differential cases in a container that runc starts by itself, emulated by a hook."""

import pytest
from test_differential import GROUPS, parameters

from support.hooked import HookedContainer
from support.oracle import Differential, RealRoot, Tally
from support.trees import Trees, debian_archive
from support.users import Unprivileged


@pytest.fixture(scope="session")
def hooked_differential(
    real_root: RealRoot, trees: Trees, session_user: Unprivileged
) -> Differential:
    ours = HookedContainer(trees, debian_archive("tools"), session_user)
    return Differential(real_root, ours, Tally())


@pytest.mark.parametrize(("group", "case"), parameters(*GROUPS))
def test_same_as_the_real_root_by_a_hook(
    group: str, case: str, hooked_differential: Differential
) -> None:
    hooked_differential.assert_same(group, GROUPS[group], case)
