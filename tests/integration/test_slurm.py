"""Containers that Slurm starts: a real cluster of one node, by examples/slurm/oci.conf."""

import glob
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest

from support.bundles import Bundle, make_bundle
from support.containers import Runrootless
from support.processes import eventually, processes
from support.slurm import CPUS, Cluster
from support.trees import Tree, Trees
from support.users import AS_ROOT, Unprivileged


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if not AS_ROOT:
        pytest.skip("slurmd has to become the job's user: run the tests as root")
    cluster = Cluster()
    yield cluster
    cluster.close()
    assert not [p for p in processes() if cluster.directory in p.command]


@pytest.fixture
def srun(cluster: Cluster, runrootless: Runrootless) -> "Srun":
    return Srun(cluster, runrootless)


@pytest.fixture(scope="module")
def directory(debian_tree: Tree, trees: Trees, session_user: Unprivileged) -> Iterator[Bundle]:
    """A bundle as Slurm 22.05 wants it: whatever root.path says, it takes rootfs/ in it."""
    path = trees.new_directory("bundle", for_user=True)
    rootfs = trees.copy(debian_tree.rootless, f"{path}/rootfs")
    # Most of all files, not needed here, and copied eight times else.
    for name in ("share/doc", "share/locale", "share/man", "share/perl", "share/zoneinfo"):
        shutil.rmtree(f"{rootfs}/usr/{name}")
    for name in ("gconv", "perl", "perl-base"):
        for unneeded in glob.glob(f"{rootfs}/usr/lib/*-linux-gnu/{name}"):
            shutil.rmtree(unneeded)
    yield make_bundle(session_user, path, rootfs)
    trees.discard(path)


@pytest.fixture
def slurm_bundle(directory: Bundle) -> Iterator[Bundle]:
    """That bundle; the configuration of each test is its own."""
    config = directory.read()
    yield directory
    directory.change(lambda changed: changed.update(config))


class Srun:
    """Runs Slurm's commands as the user, and knows when all is over."""

    def __init__(self, cluster: Cluster, runrootless: Runrootless) -> None:
        self.cluster = cluster
        self.user = runrootless.user

    def __call__(self, bundle: Bundle, script: str, *options: str) -> subprocess.Popen[str]:
        """Start a script in a container."""
        command = ["srun", *options, f"--container={bundle.path}", "sh", "-c", script]
        return self.user.start(command, env={"SLURM_CONF": self.cluster.config})

    def wait_for_the_end(self) -> None:
        """Wait until Slurm has cleaned up, and fail if anything is left then."""
        eventually(lambda: not self.cluster.steps(), self.cluster.logs, 60)
        eventually(
            lambda: not self.user.leftovers(),
            lambda: "\n".join([*self.user.leftovers(), self.cluster.logs()]),
        )


def test_srun(slurm_bundle: Bundle, srun: Srun) -> None:
    process = srun(slurm_bundle, "id -u; stat -c %U:%G /etc/shadow; echo oops >&2; exit 7")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (7, "0\nroot:shadow\n"), stderr
    assert "oops\n" in stderr
    srun.wait_for_the_end()


def test_the_environment_of_the_bundle(slurm_bundle: Bundle, srun: Srun) -> None:
    """By default the job's environment wins; with --export=NONE it is the bundle's."""
    ours = slurm_bundle.set(env={"FROM_BUNDLE": "yes"})
    script = "echo $HOME $FROM_BUNDLE $SLURM_JOB_NUM_NODES"
    process = srun(ours, script)
    assert process.communicate(timeout=60)[0] == f"{srun.user.home} yes 1\n"
    process = srun(ours, script, "--export=NONE")
    assert process.communicate(timeout=60)[0] == "/root yes 1\n"
    srun.wait_for_the_end()


def test_a_terminal(slurm_bundle: Bundle, srun: Srun, runrootless: Runrootless) -> None:
    """Slurm 22.05 makes process.terminal false; so the command itself is what is started."""
    ours = slurm_bundle.set(["sh"], terminal=True)
    run = runrootless.command("run", "--bundle", ours.path, runrootless.new_id())
    terminal = srun.user.terminal(
        ["env", f"SLURM_CONF={srun.cluster.config}", "srun", "--pty", *run], rows=33, columns=101
    )
    try:
        terminal.expect("# ")
        terminal.send("stty size; stat -c %G /etc/shadow; exit 5\n")
        terminal.expect("33 101")
        terminal.expect("shadow\r\n")
        assert terminal.wait() == 5
    finally:
        terminal.close()
    srun.wait_for_the_end()


def test_a_bundle_that_is_not_there(srun: Srun, runrootless: Runrootless) -> None:
    nowhere = f"{runrootless.user.home}/nowhere"
    done = srun.cluster.run(srun.user, ["srun", f"--container={nowhere}", "true"])
    assert done.returncode != 0
    srun.wait_for_the_end()


GRACEFUL = "trap 'echo ended; exit 0' TERM; echo up; while :; do sleep 0.1; done"
STUBBORN = "trap '' TERM; sleep 1000 & echo up; while :; do sleep 0.1; done"


@pytest.mark.parametrize("script", [GRACEFUL, STUBBORN])
def test_scancel_leaves_nothing(
    script: str, slurm_bundle: Bundle, srun: Srun, runrootless: Runrootless
) -> None:
    output = f"{srun.user.home}/output"
    job = f"#!/bin/sh\n{script}\n"
    submitted = srun.cluster.run(
        srun.user,
        ["sbatch", "--parsable", f"--output={output}", f"--container={slurm_bundle.path}"],
        input=job,
    ).check()
    number = submitted.stdout.strip()

    def printed() -> str:
        if not os.path.exists(output):
            return ""
        with open(output) as file:
            return file.read()

    eventually(lambda: "up\n" in printed(), srun.cluster.logs, 60)
    # The user's own commands know the container, and can step into it.
    name = runrootless("list", "--quiet", env={"XDG_RUNTIME_DIR": ""}).check().stdout.strip()
    assert name.startswith(f"n1.{number}.")
    inside = runrootless(
        "exec", name, "stat", "-c", "%G", "/etc/shadow", env={"XDG_RUNTIME_DIR": ""}
    )
    assert inside.check().stdout == "shadow\n"
    srun.cluster.run(srun.user, ["scancel", number]).check()
    srun.wait_for_the_end()
    assert "CANCELLED" in printed()
    assert ("ended\n" in printed()) == (script == GRACEFUL)


def test_node_that_kills_the_runtime(slurm_bundle: Bundle, srun: Srun) -> None:
    """When the runtime is killed, by the kernel for want of memory, the container goes too."""
    process = srun(slurm_bundle, STUBBORN)
    account = srun.user.account
    runtime = eventually(
        lambda: [p for p in account.processes() if re.search(r"runc\b.* run ", p.command)],
        srun.cluster.logs,
    )[0]
    eventually(
        lambda: [p for p in account.processes() if p.command == "sleep 1000"], srun.cluster.logs
    )
    os.kill(runtime.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    srun.wait_for_the_end()


CONTROL = """\
Package: greeter
Version: 1.0
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: a package with a user and a directory of its own
"""
POSTINST = """\
#!/bin/sh
set -e
groupadd --system greeter
useradd --system --gid greeter --no-create-home greeter
install -d -o greeter -g greeter -m 2750 /var/lib/greeter
"""
GREETER = "#!/bin/sh\nstat -c '%U:%G %a' /var/lib/greeter\n"


@pytest.fixture(scope="module")
def package(trees: Trees) -> Iterator[str]:
    """A package whose installation takes root: users are made, and files given to them."""
    directory = trees.new_directory("package", for_user=False)
    for name, content, mode in (
        ("DEBIAN/control", CONTROL, 0o644),
        ("DEBIAN/postinst", POSTINST, 0o755),
        ("usr/bin/greeter", GREETER, 0o755),
    ):
        path = f"{directory}/tree/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(content)
        os.chmod(path, mode)
    package = f"{directory}/greeter.deb"
    command = ["dpkg-deb", "--root-owner-group", "--build", f"{directory}/tree", package]
    subprocess.run(command, check=True, capture_output=True)
    yield package
    trees.discard(directory)


# A batch script that runs on the node itself, as --container takes no pattern: each task
# makes its own copy of the bundle and runs its containers there.
ARRAY = """\
#!/bin/sh
#SBATCH --array=1-8
#SBATCH --output=out-%a.txt
#SBATCH --export=NONE
set -e
copy=$PWD/bundle-$SLURM_ARRAY_TASK_ID
cp -a --reflink=auto {bundle} "$copy"
srun --export=NONE --container="$copy" apt-get install --yes /srv/greeter.deb
srun --export=NONE --container="$copy" greeter
"""

# One that runs in the container, with the bundle that all tasks share.
INSIDE = """\
#!/bin/sh
#SBATCH --array=1-8
#SBATCH --output=inside-%a.txt
set -e
greeter
install -o greeter -g "$SLURM_ARRAY_TASK_ID" -m 640 /dev/null /srv/mine-$SLURM_ARRAY_TASK_ID
stat -c '%U:%g %a' /srv/mine-$SLURM_ARRAY_TASK_ID
exit "$SLURM_ARRAY_TASK_ID"
"""


def test_job_array_in_which_each_task_installs_a_package(
    slurm_bundle: Bundle, package: str, srun: Srun, unprivileged: Unprivileged
) -> None:
    shutil.copy(package, f"{slurm_bundle.rootfs}/srv/greeter.deb")
    submit = ["sbatch", "--wait"]
    done = srun.cluster.run(
        unprivileged,
        submit,
        cwd=unprivileged.home,
        input=ARRAY.format(bundle=slurm_bundle.path),
        timeout=900,
    )
    texts = {}
    for task in range(1, CPUS + 1):
        with open(f"{unprivileged.home}/out-{task}.txt") as file:
            texts[task] = file.read()
    assert done.returncode == 0, f"{done}\n{texts}"
    for text in texts.values():
        assert "Setting up greeter (1.0)" in text
        assert text.endswith("greeter:greeter 2750\n")
        assert "error" not in text.lower()
    # The bundle that was copied is as it was.
    assert not os.path.exists(f"{slurm_bundle.rootfs}/var/lib/greeter")
    srun.wait_for_the_end()

    submit = ["sbatch", "--wait", f"--container={unprivileged.home}/bundle-1"]
    done = srun.cluster.run(unprivileged, submit, cwd=unprivileged.home, input=INSIDE, timeout=60)
    assert done.returncode == CPUS, done
    for task in range(1, CPUS + 1):
        with open(f"{unprivileged.home}/inside-{task}.txt") as file:
            assert file.read() == f"greeter:greeter 2750\ngreeter:{task} 640\n"
    srun.wait_for_the_end()
