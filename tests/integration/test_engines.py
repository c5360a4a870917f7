"""Each engine with the same jobs, and what there is to choose an engine by."""

import os
import stat
from collections.abc import Iterator

import pytest

from conftest import ENGINES
from support.bundles import Bundle
from support.containers import Runrootless
from support.jobs import COLUMNS, JOBS, Column, Job, Oracle, Table, do
from support.trees import CHECKOUT, Tree, Trees, debian_archive
from support.users import AS_ROOT, SUBORDINATE_RANGES, Unprivileged

DOCUMENTED = Table.read(os.path.join(CHECKOUT, "docs", "engines.md"))


class Stages:
    """The user, the engine and the bundles of each column, made when they are needed."""

    def __init__(self, trees: Trees, request: pytest.FixtureRequest) -> None:
        self.trees = trees
        self.request = request
        self.directories: list[str] = []
        self._bundles: dict[tuple[str, str], Bundle] = {}

    def tree(self, name: str) -> Tree:
        if name == "debian":
            return Tree(debian_archive("jobs"), self.trees)
        tree = self.request.getfixturevalue("alpine_tree")
        assert isinstance(tree, Tree)
        return tree

    def runrootless(self, column: Column) -> Runrootless:
        user = self.request.getfixturevalue(
            "subordinate_user" if column.subordinate_ids else "session_user"
        )
        assert isinstance(user, Unprivileged)
        return Runrootless(user, ["--engine", column.engine])

    def bundle(self, column: Column, tree: str) -> Bundle:
        """Return the column's bundle with a copy of the tree. The jobs share it."""
        key = column.title, tree
        if key not in self._bundles:
            runrootless = self.runrootless(column)
            directory = self.new_directory(runrootless.user)
            if column.subordinate_ids:
                rootfs = self.trees.copy(self.tree(tree).oracle, f"{directory}/rootfs")
                give_to_subordinates(rootfs, runrootless.user)
            else:
                rootfs = self.trees.copy(self.tree(tree).rootless, f"{directory}/rootfs")
            self._bundles[key] = runrootless.bundle_at(directory, rootfs)
        return self._bundles[key]

    def new_directory(self, user: Unprivileged) -> str:
        directory = self.trees.new_directory("engine", for_user=False)
        user.give(directory)
        self.directories.append(directory)
        return directory

    def oracle(self) -> Oracle:
        def copy(name: str) -> str:
            directory = self.trees.new_directory("oracle", for_user=False)
            self.directories.append(directory)
            return self.trees.copy(self.tree(name).oracle, f"{directory}/rootfs")

        return Oracle(copy)


def give_to_subordinates(root: str, user: Unprivileged) -> None:
    """Give the files of a tree to those whom their owners are in a container of the user's."""
    mapped = [
        number for first, count in SUBORDINATE_RANGES for number in range(first, first + count)
    ]
    uids, gids = [user.account.uid, *mapped], [user.account.gid, *mapped]
    paths = [root]
    for directory, names, files in os.walk(root):
        paths += [os.path.join(directory, name) for name in (*names, *files)]
    for path in paths:
        status = os.lstat(path)
        os.lchown(path, uids[status.st_uid], gids[status.st_gid])
        if stat.S_ISREG(status.st_mode):
            # A change of owner takes the set-user-ID bit.
            os.chmod(path, stat.S_IMODE(status.st_mode))


@pytest.fixture(scope="module")
def stages(trees: Trees, request: pytest.FixtureRequest) -> Iterator[Stages]:
    if not AS_ROOT:
        pytest.skip("the oracle is a chroot of the real root: run the tests as root")
    stages = Stages(trees, request)
    yield stages
    for directory in stages.directories:
        trees.discard(directory)


@pytest.fixture(scope="module")
def oracle(stages: Stages) -> Oracle:
    return stages.oracle()


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.title)
def test_jobs(
    column: Column, job: Job, oracle: Oracle, stages: Stages, request: pytest.FixtureRequest
) -> None:
    runrootless = stages.runrootless(column)
    outcome = do(job, oracle, runrootless, stages.bundle(column, job.tree))
    runrootless.assert_nothing_left()
    request.config.stash[ENGINES].words[column.title, job.name] = outcome.word
    documented = DOCUMENTED.words.get((column.title, job.name))
    assert outcome.word == documented, f"docs/engines.md: {documented}\n{outcome.details}"


def test_the_documentation_has_these_columns_and_jobs() -> None:
    assert set(DOCUMENTED.words) == {(c.title, j.name) for c in COLUMNS for j in JOBS}
