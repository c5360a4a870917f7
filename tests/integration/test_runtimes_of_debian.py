"""Debian 11 and Debian 13 as the host: their runc and crun, their Python and C library.

This package is installed there as their users would do it: the .deb on Debian 13, and the .rpm,
for want of a distribution that has these, on Debian 11.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from conftest import MakeBundle
from support.bundles import Config
from support.containers import Runrootless
from support.namespaces import Machine
from support.packages import MODULES, build, install_deb, install_rpm
from support.processes import eventually
from support.trees import Trees, debian_archive
from support.users import AS_ROOT, RUNTIMES, Account, Unprivileged

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="only root makes another machine's root")

OWN = "chmod 1777 /srv; touch /srv/file; chown 5:6 /srv/file"
LIST = "ls -n /srv | awk 'NR > 1 { print $3, $4, $9 }'"
AS_USER = "echo $(id -u) $(id -g); >/srv/own; stat -c %u:%g /srv/own; chown 5 /srv/own"
WAIT = "until [ -e /srv/end ]; do sleep 0.05; done"
PROGRAM = "/usr/bin/runrootless"
VERSIONS = {"bullseye": "3 9", "trixie": "3 13"}


@pytest.fixture(scope="module")
def deb(trees: Trees) -> str:
    return build("deb", trees.new_directory("deb", for_user=False))


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest, trees: Trees) -> Iterator[Machine]:
    """Another Debian, into which this package is installed."""
    release = request.param
    root = trees.oracle(debian_archive("host", release))
    if release == "trixie":
        install_deb(request.getfixturevalue("deb"), root)
    else:
        directory = trees.new_directory("rpm", for_user=False)
        install_rpm(build("rpm", directory, modules=MODULES), root, MODULES)
    machine = Machine(root)
    yield machine
    machine.close()


@pytest.fixture
def unprivileged(account: Account, machine: Machine) -> Iterator[Unprivileged]:
    user = Unprivileged(account, machine)
    yield user
    user.close()


@pytest.fixture
def runrootless(unprivileged: Unprivileged, runtime: str) -> Iterator[Runrootless]:
    command = Runrootless(unprivileged, ["--runtime", runtime], PROGRAM)
    yield command
    command.assert_nothing_left()


@pytest.fixture
def with_engine(runrootless: Runrootless, engine: str) -> Runrootless:
    options = [*runrootless.options, "--engine", engine]
    return Runrootless(runrootless.user, options, runrootless.program)


@pytest.mark.parametrize("engine", ["notify", "thorough"])
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("machine", VERSIONS, indirect=True)
def test_a_life(bundle: MakeBundle, with_engine: Runrootless) -> None:
    command = with_engine
    ours = bundle()

    def change(config: Config) -> None:
        srv = {"destination": "/srv", "type": "tmpfs", "source": "tmpfs"}
        # runc of Debian 11 mounts control groups of version 2 only where it could make one.
        others = [one for one in config["mounts"] if one["type"] != "cgroup"]
        config["mounts"] = [*others, srv]

    ours.change(change)
    done = command.run(ours.script(f"{OWN}; {LIST}; exit 3")).check(3)
    assert (done.stdout, done.stderr) == ("5 6 file\n", "")

    name = command.new_id()

    def status() -> str:
        return str(json.loads(command("state", name).check().stdout)["status"])

    command("create", "--bundle", ours.script(f"{OWN}; {WAIT}").path, name).check()
    assert status() == "created"
    command("start", name).check()
    assert status() == "running"
    eventually(
        lambda: command("exec", name, "sh", "-c", LIST).check().stdout == "5 6 file\n",
        "the first process has changed the owner",
    )
    done = command("exec", "--user", "33:34", name, "sh", "-c", AS_USER).check(1)
    assert done.stdout == "33 34\n33:34\n"
    assert "Operation not permitted" in done.stderr
    # It may be killed with the container before it has ended.
    command("exec", name, "touch", "/srv/end")
    eventually(lambda: status() == "stopped", "its end")
    command("delete", name).check()


@pytest.mark.parametrize("engine", ["notify", "thorough"])
@pytest.mark.parametrize("runtime", ["runc"])
@pytest.mark.parametrize("machine", VERSIONS, indirect=True)
def test_without_a_container(with_engine: Runrootless) -> None:
    user = with_engine.user
    version = "import sys; print(*sys.version_info[:2])"
    found = user.run(["python3", "-c", version]).check().stdout
    assert found.strip() in VERSIONS.values()
    script = "touch file; chown 5:6 file; stat -c %u:%g file; setpriv --reuid 33 id -u"
    done = with_engine("emulate", "--", "sh", "-c", script).check()
    assert (done.stdout, done.stderr) == ("5:6\n33\n", "")


def test_lintian(deb: str) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed: it brings 127 packages, so that ./test.sh does not")
    command = ["lintian", "--allow-root", "--display-info", "--fail-on", "error,warning,info", deb]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "")
