"""Fixtures, most for tests with real containers; see ``support`` for what they are made of."""

import os
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from support import pythons, workers
from support.bundles import Bundle
from support.callers import Caller
from support.containers import COMMAND, Runrootless
from support.jobs import Table
from support.namespaces import MountNamespace, is_unified
from support.oracle import Container, Differential, RealRoot, Tally
from support.storms import Storms
from support.trees import Marks, Tree, Trees, alpine_archive, debian_archive, usr_of
from support.users import AS_ROOT, Account, Unprivileged, subordinate_account

TALLY = pytest.StashKey[Tally]()
ENGINES = pytest.StashKey[Table]()
PACKAGE_MANAGERS = pytest.StashKey[dict[tuple[str, str], str]]()
"""What became of each package manager, with its version, with each engine."""

NODES = pytest.StashKey[list[Any]]()

# Whatever else the machine has to do. What a profile of hypothesis's own says otherwise stays.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")
STORMS = pytest.StashKey[Storms]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()
    config.stash[ENGINES] = Table()
    config.stash[PACKAGE_MANAGERS] = {}
    config.stash[NODES] = []
    config.stash[STORMS] = Storms()
    workers.configure(config)


def pytest_sessionstart(session: pytest.Session) -> None:
    workers.begin(session)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    # Workers of other users than root would have one account, and each would see what is
    # left of the others' containers.
    return workers.NUMBER if AS_ROOT else 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if workers.is_worker(config):
        workers.order(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not workers.is_worker(item.config):
        return (yield)
    with workers.turn(item):
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    if exitstatus == pytest.ExitCode.INTERRUPTED and workers.has_workers(config):
        workers.interrupt(config.stash[NODES])
    if workers.is_worker(config):
        tally, engines = config.stash[TALLY], config.stash[ENGINES]
        managers = config.stash[PACKAGE_MANAGERS]
        workers.tell(
            config,
            (tally.cases, tally.equal, tally.limits),
            list(engines.words.items()),
            list(managers.items()),
        )


@pytest.hookimpl(optionalhook=True)
def pytest_testnodeready(node: Any) -> None:
    node.config.stash[NODES].append(node)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a worker has counted."""
    told = workers.told(node)
    if told is not None:
        tally, engines, managers = told
        node.config.stash[TALLY].add(Tally(*tally))
        node.config.stash[ENGINES].words.update(dict(engines))
        node.config.stash[PACKAGE_MANAGERS].update(dict(managers))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    tally = config.stash[TALLY]
    if tally.cases:
        limits = f", {tally.limits} known limits" if tally.limits else ""
        terminalreporter.write_line(
            f"differential: {tally.cases} cases, {tally.equal} equal{limits}"
        )
    if config.stash[ENGINES].words:
        terminalreporter.write_line("engines:")
        for line in config.stash[ENGINES].lines():
            terminalreporter.write_line(line)
    if config.stash[PACKAGE_MANAGERS]:
        terminalreporter.write_line("package managers:")
        for (name, engine), word in sorted(config.stash[PACKAGE_MANAGERS].items()):
            terminalreporter.write_line(f"| {name} | {engine} | {word} |")
    if config.stash[STORMS].lines():
        terminalreporter.write_line("EINTR before the agent has received a call:")
        for line in config.stash[STORMS].lines():
            terminalreporter.write_line(line)


@pytest.fixture
def storms(request: pytest.FixtureRequest) -> Storms:
    """What the summary tells of interrupted calls."""
    return request.config.stash[STORMS]


@pytest.fixture(scope="session")
def account() -> Account:
    """The user that containers are run as. It has no subordinate IDs."""
    if not os.access(COMMAND, os.X_OK):
        workers.stop(f"{COMMAND} is not there: run the tests with ./test.sh", 4)
    return Account.find()


@pytest.fixture(scope="session")
def session_user(account: Account) -> Iterator[Unprivileged]:
    """That user, for what is made once for all tests."""
    user = Unprivileged(account)
    yield user
    user.close()


@pytest.fixture(scope="session")
def unified() -> Iterator[MountNamespace | None]:
    """A mount namespace with cgroup version 2, unless the machine has that anyway."""
    if is_unified():
        yield None
        return
    if not AS_ROOT:
        pytest.skip("crun refuses cgroup version 1, and only root can mount version 2")
    namespace = MountNamespace("v2")
    yield namespace
    namespace.close()


@pytest.fixture
def runtime(request: pytest.FixtureRequest) -> str:
    """The OCI runtime to test with: runc, or what a test is parametrized with."""
    return str(getattr(request, "param", "runc"))


@pytest.fixture
def unprivileged(
    request: pytest.FixtureRequest, account: Account, runtime: str
) -> Iterator[Unprivileged]:
    """Runs commands as that user, in a login session of the test's own."""
    namespace = request.getfixturevalue("unified") if runtime == "crun" else None
    user = Unprivileged(account, namespace)
    yield user
    user.close()


@pytest.fixture(scope="session")
def trees(session_user: Unprivileged) -> Iterator[Trees]:
    """Unpacks and copies root file systems."""
    trees = Trees(session_user)
    yield trees
    trees.close()


@pytest.fixture(scope="session")
def debian_tree(trees: Trees) -> Tree:
    """A minimal Debian as mmdebstrap makes it."""
    return Tree(debian_archive("debian"), trees)


@pytest.fixture(scope="session")
def tools_tree(trees: Trees) -> Tree:
    """A minimal Debian with Python and tools for files and for making root file systems."""
    return Tree(debian_archive("tools"), trees)


@pytest.fixture(scope="session")
def servers_tree(trees: Trees) -> Tree:
    """A minimal Debian with the packages of some servers downloaded, not installed."""
    return Tree(debian_archive("servers"), trees)


@pytest.fixture(scope="session")
def jobs_tree(trees: Trees) -> Tree:
    """A minimal Debian with a package downloaded, and without documentation."""
    return Tree(debian_archive("jobs"), trees)


@pytest.fixture(scope="session")
def alpine_tree(trees: Trees) -> Tree:
    """Alpine's minirootfs, with musl and busybox."""
    archive = alpine_archive()
    if archive is None:
        pytest.skip("no alpine-minirootfs-*.tar.gz in $RUNROOTLESS_TEST_IMAGES")
    return Tree(archive, trees)


MakeBundle = Callable[..., Bundle]


@pytest.fixture
def bundle(
    request: pytest.FixtureRequest, trees: Trees, runrootless: Runrootless
) -> Iterator[MakeBundle]:
    """Make regular bundles: ``bundle()``, or ``bundle(tree, copy=True)``.

    The tree is Debian's where none is given. Without ``copy`` all tests share
    it, so that what a container changes in it must not matter to others; what is new
    in /srv is removed. With it
    the files in /usr alone are shared, and must not be changed, unless the copy
    is to be ``whole``.
    """
    directories = []
    shared: list[tuple[str, Marks]] = []
    used: dict[str, set[str]] = {}

    def make(tree: Tree | None = None, *, copy: bool = False, whole: bool = False) -> Bundle:
        tree = tree or request.getfixturevalue("debian_tree")
        assert isinstance(tree, Tree)
        directory = trees.new_directory("bundle", for_user=True)
        directories.append(directory)
        rootfs = tree.rootless
        if whole:
            rootfs = trees.copy(rootfs, f"{directory}/rootfs")
        elif copy:
            shared.append((rootfs, usr_of(rootfs)))
            rootfs = trees.copy_all_but_usr(rootfs, f"{directory}/rootfs")
        else:
            used.setdefault(f"{rootfs}/srv", set(os.listdir(f"{rootfs}/srv")))
        return runrootless.bundle_at(directory, rootfs)

    yield make
    for directory in directories:
        trees.discard(directory)
    for path, names in used.items():
        for name in set(os.listdir(path)) - names:
            trees.discard(f"{path}/{name}")
    for path, before in shared:
        after = usr_of(path)
        changed = [
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        ]
        assert not changed, f"changed for all tests, which takes a whole copy: {changed[:10]}"


@pytest.fixture
def runrootless(unprivileged: Unprivileged, runtime: str) -> Iterator[Runrootless]:
    """Runs the command; in the end nothing of its containers may be left."""
    command = Runrootless(unprivileged, ["--runtime", runtime])
    yield command
    command.assert_nothing_left()


@pytest.fixture(scope="session")
def subordinate_user(account: Account) -> Iterator[Unprivileged]:
    """A user of the tests' own who has subordinate IDs, in two ranges; it goes with the run."""
    if not AS_ROOT:
        pytest.skip("only root makes users: run the tests as root")
    with subordinate_account(account) as subordinate:
        user = Unprivileged(subordinate)
        yield user
        user.close()


@pytest.fixture(scope="session")
def real_root(trees: Trees) -> RealRoot:
    """Runs scripts in a plain chroot as real root."""
    if not AS_ROOT:
        pytest.skip("the oracle is a chroot of the real root: run the tests as root")
    return RealRoot(trees, debian_archive("tools"))


MakeDifferential = Callable[[Runrootless], Differential]


@pytest.fixture(scope="session")
def make_differential(
    request: pytest.FixtureRequest, real_root: RealRoot, trees: Trees
) -> MakeDifferential:
    """Compare what scripts print in that chroot and in a container."""

    def make(runrootless: Runrootless) -> Differential:
        ours = Container(trees, debian_archive("tools"), runrootless)
        return Differential(real_root, ours, request.config.stash[TALLY])

    return make


@pytest.fixture(scope="session")
def differential(make_differential: MakeDifferential, session_user: Unprivileged) -> Differential:
    """Compares what scripts print as real root and in a container."""
    return make_differential(Runrootless(session_user))


@pytest.fixture(scope="session")
def differential_with_crun(
    make_differential: MakeDifferential, account: Account, unified: MountNamespace | None
) -> Iterator[Differential]:
    """Does the same with crun in place of runc."""
    user = Unprivileged(account, unified)
    yield make_differential(Runrootless(user, ["--runtime", "crun"]))
    user.close()


@pytest.fixture(scope="session")
def differential_of_thorough(
    make_differential: MakeDifferential, session_user: Unprivileged
) -> Differential:
    """Does the same with the engine that looks at every file that is opened."""
    return make_differential(Runrootless(session_user, ["--engine", "thorough"]))


@pytest.fixture(scope="session")
def differential_with_fast_path(
    make_differential: MakeDifferential, session_user: Unprivileged
) -> Differential:
    """Does the same where programs answer for themselves."""
    return make_differential(Runrootless(session_user, ["--fast-path", "on"]))


@pytest.fixture(
    scope="module",
    params=[version for version in pythons.VERSIONS if version != pythons.OWN],
    ids=pythons.name_of,
)
def python(request: pytest.FixtureRequest, trees: Trees) -> Iterator[pythons.Installed]:
    """The package with each version of Python that is supported and found; it names the others."""
    found = pythons.find(request.param)
    if found is None:
        pytest.skip(f"no Python {pythons.name_of(request.param)} is here that can be executed")
    directory = trees.new_directory(f"python-{found.name}", for_user=False)
    yield pythons.install(found, directory, trees)
    trees.discard(directory)


both_runtimes = pytest.mark.parametrize("runtime", ["runc", "crun"], indirect=True)
"""Marks tests that are run with each of the OCI runtimes."""


def _descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}


@pytest.fixture
def as_an_agent() -> Iterator[None]:
    """Closes what was opened meanwhile: an agent's descriptors go when it ends."""
    before = _descriptors()
    yield
    for descriptor in _descriptors() - before:
        try:
            os.close(descriptor)
        except OSError:
            # That of the listing itself.
            pass


@pytest.fixture
def in_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the agent's working directory."""
    monkeypatch.chdir("/proc")


@pytest.fixture
def caller(in_proc: None) -> Iterator[Caller]:
    """A process whose calls the loop in C answers."""
    before = os.listdir("/proc/self/fd")
    one = Caller()
    yield one
    one.end()
    assert len(os.listdir("/proc/self/fd")) <= len(before)
