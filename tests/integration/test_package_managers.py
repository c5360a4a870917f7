"""Package managers and archivers, as real root in a chroot and in a container.

Each case makes its own packages and repository: with files of several owners, set-ID files,
device nodes, capabilities and access control lists where the format has them, and scripts that
make users and change owners. It installs, upgrades, downgrades and removes them, and prints all
that there is of every file each time, and what the manager's own check finds. All of it must be
the same for the real root and in the container of a user without privileges. The cases are in
``package_managers``, with what they share.

The table at the end of the run is that of docs/package-managers.md.
"""

import glob
import os
import re
import shutil
from collections.abc import Iterator

import pytest
from _pytest.mark import ParameterSet

from conftest import PACKAGE_MANAGERS, TALLY
from support.containers import Runrootless
from support.many_apk import make_many
from support.oracle import Case, Container, Differential, RealRoot, Side, in_chroot, read_cases
from support.processes import Result
from support.trees import SUITE, Marks, Trees, alpine_archive, debian_archive, usr_of
from support.users import AS_ROOT, Unprivileged

DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "package_managers")
GROUPS = {
    os.path.basename(path).removesuffix(".cases"): read_cases(path)
    for path in sorted(glob.glob(f"{DIRECTORY}/*.cases"))
}
ALL = "RUNROOTLESS_TEST_ALL_PACKAGE_MANAGERS"
"""The variable with which npm is tried, too, and everything with the engine thorough as well."""
RELEASE = os.environ.get("RUNROOTLESS_TEST_PACKAGE_MANAGERS_OF", SUITE)
"""The release of Debian whose they are: bookworm, or by hand trixie or sid."""

HEAVY = ("npm",)
# What is tried with the engine thorough in any case: some seconds in all.
QUICK = ("apk", "archives", "rpm", "zypper")
OF_ALPINE = ("apk",)
# What there is in some releases only.
RELEASES = {"apk": [SUITE], "dnf5": ["sid"], "npm": [SUITE]}
INSTALLED = re.compile(r"^-- installed: 0$", re.MULTILINE)
FAILED = re.compile(r"^-- \w+: [1-9]", re.MULTILINE)
# What tells the version of what a case is about, where its name is not the program's.
VERSIONS = {
    "apk": "apk --version",
    "cpio": "cpio --version | head -n 1",
    "gem": "echo gem $(gem --version)",
    "dpkg": "dpkg --version | grep -o '[0-9.]* ('; apt-get --version | head -n 1",
    "pacman": "pacman --version | grep -o 'Pacman v[0-9.]*'",
    "squashfs": "unsquashfs -version | head -n 1",
    "yum_in_a_root_of_its_own": "dnf --version | head -n 1",
}


def limited(case: Case) -> bool:
    """Return whether a case is to differ. rpm of later releases does not open device nodes."""
    return bool(case.limit) and RELEASE == SUITE


class WithShared(Side):
    """Runs cases where they find what they share, in a copy whose files in /usr are the tree's own.

    None of the cases changes one of them.
    """

    before: Marks | None = None

    def copy(self, tree: str, destination: str) -> None:
        """Copy all of the tree but these files."""
        self.before = usr_of(tree)
        self.trees.copy_all_but_usr(tree, destination)

    def check_usr(self) -> None:
        """Fail if the tree's own files have been changed. There may be new ones."""
        after = usr_of(self._tree) if self.before else {}
        changed = [name for name, was in (self.before or {}).items() if after.get(name) != was]
        assert not changed, f"changed for all cases: {changed[:10]}"

    def put(self, root: str, for_user: Unprivileged | None) -> None:
        """Put that into a root file system."""
        directory = os.path.join(root, ".package-managers")
        shutil.rmtree(directory, ignore_errors=True)
        os.mkdir(directory)
        for path in glob.glob(f"{DIRECTORY}/*"):
            if not path.endswith(".cases"):
                shutil.copy(path, directory)
        for version in (1, 2):
            with open(f"{directory}/many-{version}-r0.apk", "wb") as file:
                file.write(make_many(version))
        if for_user is not None:
            for path in (directory, *glob.glob(f"{directory}/*")):
                for_user.give(path)


class ChrootWithShared(WithShared, RealRoot):
    """The real root in a plain chroot."""

    def run_batch(self, directory: str, root: str, group: str, timeout: float) -> Result:
        """Run the cases there."""
        self.put(root, None)
        return super().run_batch(directory, root, group, timeout)


class ContainerWithShared(WithShared, Container):
    """A user without privileges, in a container."""

    # rpm of Debian 13 runs scripts with an own /tmp, and without a network.
    administrators = () if RELEASE == SUITE else ("dnf", "dnf5", "rpm", "zypper")

    def run_batch(self, directory: str, root: str, group: str, timeout: float) -> Result:
        """Run the cases there."""
        self.put(root, self.trees.user)
        return super().run_batch(directory, root, group, timeout)


def archive_of(group: str) -> str:
    if group not in OF_ALPINE:
        recipe = "npm" if group in HEAVY else "packages"
        return debian_archive(recipe if RELEASE == SUITE else f"{recipe}-{RELEASE}", RELEASE)
    archive = alpine_archive()
    if archive is None:
        pytest.skip("no alpine-minirootfs-*.tar.gz in $RUNROOTLESS_TEST_IMAGES")
    return archive


class Managers:
    """Compares both sides, with each tree once, and notes what became of it."""

    def __init__(self, trees: Trees, user: Unprivileged, config: pytest.Config) -> None:
        self._trees = trees
        self._user = user
        self._config = config
        self._oracles: dict[str, ChrootWithShared] = {}
        self._differentials: dict[tuple[str, str], Differential] = {}
        self._versions: dict[str, str] = {}

    def check(self, group: str, name: str, engine: str) -> None:
        """Fail, showing the lines that differ, unless a case is the same on both sides."""
        archive = archive_of(group)
        key = archive, engine
        if key not in self._differentials:
            if archive not in self._oracles:
                self._oracles[archive] = ChrootWithShared(self._trees, archive)
            runrootless = Runrootless(self._user, ["--engine", engine])
            ours = ContainerWithShared(self._trees, archive, runrootless)
            tally = self._config.stash[TALLY]
            self._differentials[key] = Differential(self._oracles[archive], ours, tally)
        cases = GROUPS[group]
        table = self._config.stash[PACKAGE_MANAGERS]
        row = f"{name.replace('_', ' ')} ({self._version(archive, name)})"
        table[row, engine] = f"limit: {cases[name].limit}" if limited(cases[name]) else "differs"
        comparison = self._differentials[key].compare(group, cases, name)
        # Lest both sides fail in the same way.
        installs = re.search(r"state installed|dnf\.sh", cases[name].script)
        assert not installs or INSTALLED.search(comparison.oracle), comparison.oracle[-3000:]
        assert not FAILED.search(comparison.oracle), comparison.oracle[-3000:]
        self._differentials[key].assert_same(group, cases, name)
        table[row, engine] = "same as real root"

    def close(self) -> None:
        """Fail if a case has changed what all share."""
        ours = [differential.ours for differential in self._differentials.values()]
        for side in (*self._oracles.values(), *ours):
            assert isinstance(side, WithShared)
            side.check_usr()

    def _version(self, archive: str, name: str) -> str:
        if name not in self._versions:
            command = VERSIONS.get(name, f"{name.partition('_')[0]} --version | head -n 1")
            done = in_chroot(self._trees.oracle(archive), ["sh", "-c", f"{command} 2>&1"])
            found = re.search(r"\d[\w.]*\w", done.stdout)
            self._versions[name] = found.group() if found else "?"
        return self._versions[name]


@pytest.fixture(scope="module")
def managers(
    trees: Trees, session_user: Unprivileged, request: pytest.FixtureRequest
) -> Iterator[Managers]:
    if not AS_ROOT:
        pytest.skip("the oracle is a chroot of the real root: run the tests as root")
    managers = Managers(trees, session_user, request.config)
    yield managers
    managers.close()


def parameters(engine: str) -> list[ParameterSet]:
    return [
        pytest.param(
            group,
            case.name,
            engine,
            id=f"{case.name}-{engine}",
            marks=pytest.mark.xfail(strict=True, reason=case.limit) if limited(case) else (),
        )
        for group in GROUPS
        for case in GROUPS[group].values()
        if os.environ.get(ALL) or group not in HEAVY
        if os.environ.get(ALL) or engine == "notify" or group in QUICK
        if RELEASE in RELEASES.get(group, [RELEASE])
    ]


@pytest.mark.parametrize(
    ("group", "name", "engine"),
    parameters("notify") + parameters("thorough"),
)
def test_same_as_the_real_root(group: str, name: str, engine: str, managers: Managers) -> None:
    managers.check(group, name, engine)
