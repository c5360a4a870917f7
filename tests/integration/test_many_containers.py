"""Many containers made and deleted at the same time leave nothing behind.

``RUNROOTLESS_TEST_CONTAINERS`` is how many, for long runs by hand.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import MakeBundle, both_runtimes
from support.containers import Runrootless
from support.users import Unprivileged

COUNT = int(os.environ.get("RUNROOTLESS_TEST_CONTAINERS", "100"))
AT_ONCE = 8


def mounts_of(user: Unprivileged) -> list[str]:
    with open("/proc/self/mounts") as file:
        return [line for line in file if user.session in line]


def sockets_of(user: Unprivileged) -> list[str]:
    with open("/proc/net/unix") as file:
        return [line.split()[-1] for line in file if user.session in line]


@pytest.fixture
def watched(runrootless: Runrootless) -> Iterator[Runrootless]:
    """The command; its user has neither a mount nor a socket in the end."""
    yield runrootless
    # After what is waited for there: agents leave when their containers have gone.
    runrootless.assert_nothing_left()
    assert mounts_of(runrootless.user) == []
    assert sockets_of(runrootless.user) == []


@both_runtimes
def test_created_and_deleted(bundle: MakeBundle, watched: Runrootless) -> None:
    ours = bundle().script("exit 0")

    def one(number: int) -> None:
        name = f"many-{number}"
        watched("create", "--bundle", ours.path, name).check()
        assert os.path.isdir(os.path.join(watched.user.runtime_dir, "runrootless"))
        if number % 4 == 0:
            # Some have run, in some a process joined, most have never been started.
            watched("start", name).check()
        elif number % 4 == 1:
            watched("exec", "--user", "5:6", name, "true")
        watched("delete", "--force", name).check()

    with ThreadPoolExecutor(AT_ONCE) as executor:
        for done in executor.map(one, range(COUNT)):
            assert done is None
    assert watched("list", "--quiet").check().stdout == ""


def test_run_at_once(bundle: MakeBundle, watched: Runrootless) -> None:
    """Of one bundle, each by its own ID, to their ends."""
    ours = bundle().script("stat -c %G /etc/shadow; exit 5")

    def one(number: int) -> None:
        done = watched("run", "--bundle", ours.path, f"run-{number}")
        assert done.check(5).stdout == "shadow\n"

    with ThreadPoolExecutor(AT_ONCE) as executor:
        for done in executor.map(one, range(32)):
            assert done is None
