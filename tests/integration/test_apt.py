"""Debian's package manager in a container of a user without privileges."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from conftest import MakeBundle, both_runtimes
from support.agents import Killer
from support.bundles import Bundle
from support.containers import Runrootless
from support.installations import EXCEPTIONS, check_same
from support.oracle import in_chroot
from support.snapshots import INSPECT, compare, inspected, snapshot
from support.trees import DATABASE, SERVERS, Tree, Trees
from support.users import AS_ROOT, Unprivileged

# Without waiting for the disk after each file.
APT = "DPKG_FORCE=unsafe-io DEBIAN_FRONTEND=noninteractive apt-get install --yes"

# Else the servers would be started, in the chroot with the host's network.
NO_SERVICES = (
    "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d"
)


@both_runtimes
def test_apt_update_and_install_from_the_mirror(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    installing = bundle(whole=True).script(
        "apt-get update && apt-get install -y cowsay && /usr/games/cowsay hello rootless world"
    )
    done = runrootless.run(installing, timeout=900).check()
    assert "< hello rootless world >" in done.stdout
    # apt downloads as its own user, and warns when it can't.
    assert "W:" not in done.stdout + done.stderr


@dataclass
class Installed:
    """The same packages installed on both sides."""

    oracle: str
    bundle: Bundle
    output: str
    runrootless: Runrootless


@pytest.fixture(scope="module")
def installed(servers_tree: Tree, trees: Trees, session_user: Unprivileged) -> Iterator[Installed]:
    """Servers installed without the network, by the real root and in a container."""
    if not AS_ROOT:
        pytest.skip("the oracle is a chroot of the real root: run the tests as root")
    script = f"{NO_SERVICES} && {APT} --no-download {' '.join(SERVERS)}"
    root = trees.new_directory("oracle", for_user=False)
    oracle = trees.copy(servers_tree.oracle, f"{root}/rootfs")
    directory = trees.new_directory("bundle", for_user=True)
    rootfs = trees.copy(servers_tree.rootless, f"{directory}/rootfs")
    runrootless = Runrootless(session_user)
    bundle = runrootless.bundle_at(directory, rootfs).script(script)
    with ThreadPoolExecutor() as pool:
        theirs = pool.submit(in_chroot, oracle, ["/bin/sh", "-c", script], timeout=900)
        done = runrootless.run(bundle, timeout=900).check()
        theirs.result().check()
    runrootless.assert_nothing_left()
    yield Installed(oracle, bundle, done.stdout + done.stderr, runrootless)
    trees.discard(root)
    trees.discard(directory)


def test_owner_and_mode_of_all_files_seen_in_a_later_container(installed: Installed) -> None:
    bundle = installed.bundle.script(INSPECT)
    done = installed.runrootless.run(bundle).check()
    installed.runrootless.assert_nothing_left()
    rootless = inspected(done.stdout, bundle.rootfs)
    check_same(snapshot(installed.oracle, rootless=False), rootless, installed.oracle)


def test_owner_and_mode_of_all_files_recorded_on_disk(installed: Installed) -> None:
    rootless = snapshot(installed.bundle.rootfs, rootless=True)
    check_same(snapshot(installed.oracle, rootless=False), rootless, installed.oracle)


def test_a_worker_killed_again_and_again_during_the_installation(
    installed: Installed, servers_tree: Tree, trees: Trees
) -> None:
    directory = trees.new_directory("bundle", for_user=True)
    rootfs = trees.copy(servers_tree.rootless, f"{directory}/rootfs")
    script = f"{NO_SERVICES} && {APT} --no-download {' '.join(SERVERS)}"
    runrootless = installed.runrootless
    bundle = runrootless.bundle_at(directory, rootfs).script(script)
    with Killer(runrootless.user.account, 0.05) as killer:
        runrootless.run(bundle, timeout=900).check()
    runrootless.assert_nothing_left()
    assert killer.kills > 50
    oracle = snapshot(installed.oracle, rootless=False)
    check_same(oracle, snapshot(rootfs, rootless=True), installed.oracle)
    trees.discard(directory)


def test_the_comparison_sees_a_difference(installed: Installed) -> None:
    rootless = snapshot(installed.bundle.rootfs, rootless=True)
    oracle = snapshot(installed.oracle, rootless=False)
    assert oracle["etc/shadow"].gid == 42
    rootless["etc/shadow"] = rootless["etc/passwd"]
    assert [d for d in compare(oracle, rootless, EXCEPTIONS) if "etc/shadow: owner 0:42" in d]


def test_dpkg_finds_nothing_to_complain_about(installed: Installed) -> None:
    assert "warning" not in installed.output.lower().replace("warnings", "")
    done = installed.runrootless.run(installed.bundle.script("dpkg --audit; dpkg --verify"))
    assert done.check().stdout == ""


POSTGRESQL = f"""
set -e
{APT} --no-download --no-install-recommends {" ".join(DATABASE)} >/tmp/log 2>&1 ||
    {{ cat /tmp/log; exit 1; }}
pg_lsclusters --no-header
pg_createcluster 15 second -- --auth-local=peer
stat -c '%U:%G %a %n' /etc/postgresql/15/second /var/lib/postgresql/15/second
pg_ctlcluster 15 second start
su postgres -c "psql --cluster 15/second --no-align --tuples-only -c 'select current_user'"
pg_ctlcluster 15 second stop
"""


def test_postgresql_makes_starts_and_answers_from_a_cluster(installed: Installed) -> None:
    # The server refuses to run as root, and the peer's user decides who may log in.
    done = installed.runrootless.run(installed.bundle.script(POSTGRESQL), timeout=900).check()
    installed.runrootless.assert_nothing_left()
    assert "postgres:postgres 755 /etc/postgresql/15/second" in done.stdout
    assert "postgres:postgres 700 /var/lib/postgresql/15/second" in done.stdout
    assert done.stdout.splitlines()[-1] == "postgres"
