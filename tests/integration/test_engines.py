"""Each engine with the same jobs, and what there is to choose an engine by."""

import os
import stat
from collections.abc import Iterator

import pytest

from conftest import ENGINES, MakeBundle
from support.bundles import Bundle
from support.containers import Runrootless
from support.jobs import COLUMNS, FAILS, FINISHES, JOBS, UNSTEADY, Column, Job, Oracle, Table, do
from support.processes import eventually
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
    word = outcome.word
    if job.name in column.unsteady and word in (FAILS, FINISHES):
        word = UNSTEADY
    request.config.stash[ENGINES].words[column.title, job.name] = word
    documented = DOCUMENTED.words.get((column.title, job.name))
    assert word == documented, f"docs/engines.md: {documented}\n{outcome.details}"


def test_the_documentation_has_these_columns_and_jobs() -> None:
    assert set(DOCUMENTED.words) == {(c.title, j.name) for c in COLUMNS for j in JOBS}


LIFE = """
mkdir /srv/new
chown 33:33 /srv/new; echo chown $?
mknod /srv/new/device c 1 3; echo mknod $?
ls /srv/new
mkfifo /dev/shm/fifo && stat -c '%F %u:%g' /dev/shm/fifo /srv/new
rmdir /srv/new
id -u
"""
LIVED = "chown 0\nmknod 0\nfifo 0:0\ndirectory 0:0\n0\n"


def test_zero_from_the_creation_to_the_end(bundle: MakeBundle, unprivileged: Unprivileged) -> None:
    """And nobody but the container is there while it runs; nothing is, afterwards."""
    runrootless = Runrootless(unprivileged, ["--engine", "zero"])
    container = runrootless.new_id()
    path = bundle().set(["sleep", "100"], user=(33, 33, [4])).path
    runrootless("create", "--bundle", path, container).check()
    runrootless("start", container).check()
    eventually(
        lambda: [one.command for one in unprivileged.account.processes()] == ["sleep 100"],
        "the end of all but the container",
    )
    without = Runrootless(unprivileged)
    for user in ([], ["--user", "www-data"]):
        done = without("exec", *user, container, "sh", "-c", LIFE + "rm /dev/shm/fifo").check()
        assert done.stdout == LIVED
    without("kill", container, "KILL").check()
    without("delete", "--force", container).check()
    runrootless.assert_nothing_left()


@pytest.mark.parametrize("runtime", ["crun"], indirect=True)
def test_zero_with_crun(bundle: MakeBundle, unprivileged: Unprivileged, runtime: str) -> None:
    runrootless = Runrootless(unprivileged, ["--engine", "zero", "--runtime", runtime])
    assert runrootless.run(bundle().script(LIFE)).check().stdout == LIVED
    runrootless.assert_nothing_left()


def test_apt_becomes_nobody_to_download_only_if_it_is_not_told(
    bundle: MakeBundle, unprivileged: Unprivileged
) -> None:
    """The reason for what the engine mounts for apt."""
    update = (
        "mkdir -p /dev/shm/lists/partial && cd /dev/shm && : >Packages &&"
        " echo 'deb [trusted=yes] file:/dev/shm ./' >list;"
        "apt-get update --quiet -o Dir::Etc::SourceList=/dev/shm/list"
        " -o Dir::Etc::SourceParts=- -o Dir::State::Lists=/dev/shm/lists"
    )
    runrootless = Runrootless(unprivileged, ["--engine", "zero"])
    runrootless.run(bundle().script(update)).check()
    done = runrootless.run(bundle().script(f"unset APT_CONFIG; {update}")).check(100)
    assert "Could not switch group" in done.stderr
    runrootless.assert_nothing_left()


def test_none_has_the_users_whole_ranges(trees: Trees, subordinate_user: Unprivileged) -> None:
    runrootless = Runrootless(subordinate_user, ["--engine", "none"])
    directory = trees.new_directory("bundle", for_user=False)
    subordinate_user.give(directory)
    rootfs = trees.copy(Tree(debian_archive("debian"), trees).rootless, f"{directory}/rootfs")
    trees_own = runrootless.bundle_at(directory, rootfs)
    done = runrootless.run(trees_own.script("cat /proc/self/uid_map /proc/self/gid_map")).check()
    uid, gid = subordinate_user.account.uid, subordinate_user.account.gid
    expected = []
    for own in (uid, gid):
        expected += [[0, own, 1], [1, *SUBORDINATE_RANGES[0]], [30001, *SUBORDINATE_RANGES[1]]]
    assert [[int(word) for word in line.split()] for line in done.stdout.splitlines()] == expected

    last = sum(count for _, count in SUBORDINATE_RANGES)
    trees_own.script("id -u; id -g; touch /dev/shm/file; stat -c %u:%g /dev/shm/file")
    done = runrootless.run(trees_own.set(user=(last, 33, []))).check()
    assert done.stdout == f"{last}\n33\n{last}:33\n"
    refused = runrootless.run(trees_own.set(user=(last + 1, 33, []))).check(1)
    assert f"no user {last + 1} with the engine none, only 0 to {last}" in refused.stderr

    container = runrootless.new_id()
    trees_own.set(["sleep", "100"], user=(0, 0, []))
    runrootless("run", "--detach", "--bundle", trees_own.path, container).check()
    done = runrootless("exec", "--user", "www-data:backup", container, "id").check()
    assert done.stdout.startswith("uid=33(www-data) gid=34(backup)")
    runrootless("delete", "--force", container).check()
    runrootless.assert_nothing_left()
    trees.discard(directory)


def test_none_has_one_id_without_them(bundle: MakeBundle, unprivileged: Unprivileged) -> None:
    runrootless = Runrootless(unprivileged, ["--engine", "none"])
    script = "cat /proc/self/uid_map; chown 33 /srv || echo refused"
    done = runrootless.run(bundle().script(script)).check()
    assert done.stdout.split() == ["0", str(unprivileged.account.uid), "1", "refused"]
    refused = runrootless.run(bundle().set(["id"], user=(33, 33, []))).check(1)
    assert "no user 33 with the engine none, only 0: take the engine notify" in refused.stderr
    runrootless.assert_nothing_left()
