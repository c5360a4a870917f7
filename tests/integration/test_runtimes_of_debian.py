"""runc and crun of Debian 11, and of Debian 13, which is the host then.

That of Debian 13 is a machine of its own, whose Python and C library are its own as well: runc
executes itself anew. The runtimes of Debian 11 run here, with the libraries of this machine.
"""

import glob
import json
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

import runrootless as package
from conftest import MakeBundle
from support.bundles import Config
from support.containers import COMMAND, Runrootless
from support.namespaces import Machine
from support.processes import eventually
from support.trees import Trees, debian_archive
from support.users import AS_ROOT, RUNTIMES, Account, Unprivileged

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="only root makes another machine's root")

OWN = "chmod 1777 /srv; touch /srv/file; chown 5:6 /srv/file"
LIST = "ls -n /srv | awk 'NR > 1 { print $3, $4, $9 }'"
AS_USER = "echo $(id -u) $(id -g); >/srv/own; stat -c %u:%g /srv/own; chown 5 /srv/own"
WAIT = "until [ -e /srv/end ]; do sleep 0.05; done"
INSTALLED = "/usr/local/bin/runrootless"


def install(root: str) -> None:
    """Put the installed package into another root file system, for the Python there."""
    (library,) = glob.glob(f"{root}/usr/lib/python3.*")
    directory = f"{root}/usr/local/lib/{os.path.basename(library)}/dist-packages/runrootless"
    source = os.path.dirname(package.__file__)
    shutil.copytree(source, directory, ignore=shutil.ignore_patterns("__pycache__"))
    with open(f"{COMMAND}-python") as file:
        _, _, script = file.read().partition("\n")
    os.makedirs(os.path.dirname(root + INSTALLED), exist_ok=True)
    shutil.copy(COMMAND, root + INSTALLED)
    path = f"{root}{INSTALLED}-python"
    with open(path, "w") as file:
        file.write(f"#!/usr/bin/python3\n{script}")
    os.chmod(path, 0o755)
    # As dpkg's trigger does it: users cannot write there.
    compiled = directory.removeprefix(root)
    subprocess.run(["chroot", root, "python3", "-m", "compileall", "-q", compiled], check=True)


@pytest.fixture(scope="module")
def machine(trees: Trees) -> Iterator[Machine]:
    """Debian 13, with this package."""
    root = trees.oracle(debian_archive("host", "trixie"))
    install(root)
    machine = Machine(root)
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def old(trees: Trees) -> str:
    """The directories with the runtimes of Debian 11, as PATH has them."""
    root = trees.oracle(debian_archive("runtimes", "bullseye"))
    return f"{root}/usr/sbin:{root}/usr/bin"


@pytest.fixture
def unprivileged(
    request: pytest.FixtureRequest, account: Account, release: str, runtime: str
) -> Iterator[Unprivileged]:
    namespace = None
    if release == "trixie":
        namespace = request.getfixturevalue("machine")
    elif runtime == "crun":
        namespace = request.getfixturevalue("unified")
    user = Unprivileged(account, namespace)
    yield user
    user.close()


@pytest.fixture
def runrootless(
    request: pytest.FixtureRequest, unprivileged: Unprivileged, release: str, runtime: str
) -> Iterator[Runrootless]:
    program = INSTALLED
    if release == "bullseye":
        program = COMMAND
        runtime = shutil.which(runtime, path=request.getfixturevalue("old")) or ""
    command = Runrootless(unprivileged, ["--runtime", runtime], program)
    yield command
    command.assert_nothing_left()


@pytest.fixture
def with_engine(runrootless: Runrootless, engine: str) -> Runrootless:
    options = [*runrootless.options, "--engine", engine]
    return Runrootless(runrootless.user, options, runrootless.program)


@pytest.mark.parametrize("engine", ["notify", "thorough"])
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("release", ["trixie", "bullseye"])
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
    command("exec", name, "touch", "/srv/end").check()
    eventually(lambda: status() == "stopped", "its end")
    command("delete", name).check()


@pytest.mark.parametrize("engine", ["notify", "thorough"])
@pytest.mark.parametrize("runtime", ["runc"])
@pytest.mark.parametrize("release", ["trixie"])
def test_without_a_container(with_engine: Runrootless) -> None:
    user = with_engine.user
    version = "import sys; print(*sys.version_info[:2])"
    assert user.run(["python3", "-c", version]).check().stdout == "3 13\n"
    script = "touch file; chown 5:6 file; stat -c %u:%g file; setpriv --reuid 33 id -u"
    done = with_engine("emulate", "--", "sh", "-c", script).check()
    assert (done.stdout, done.stderr) == ("5:6\n33\n", "")
