"""containerd as the unprivileged user, with the runtime as its runc.

It is started in two ways: under `emulate`, and in a plain user namespace.
"""

import os
import re
from collections.abc import Iterator

import pytest

from support.containers import COMMAND
from support.images import File, busybox_layer, docker_archive, layer
from support.processes import Result, eventually
from support.trees import Trees
from support.users import Account, Unprivileged

CONFIG = """\
version = 2
root = "{home}/containerd"
state = "{runtime_dir}/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{runtime_dir}/containerd/socket"
[ttrpc]
  address = "{runtime_dir}/containerd/ttrpc"
"""

# What a shim keeps in /run cannot be put elsewhere, hence the empty one.
START = "mount -t tmpfs none /run && exec containerd --config {config}"

FILES = [File("srv/", 33, 33, 0o2755), File("srv/page", 33, 44)]


class Containerd:
    """The daemon, and commands beside it, in a user and mount namespace of their own."""

    def __init__(self, user: Unprivileged, *enter: str) -> None:
        self.user = user
        config = os.path.join(user.home, "config.toml")
        with open(config, "w") as file:
            file.write(CONFIG.format(home=user.home, runtime_dir=user.runtime_dir))
        os.chmod(config, 0o644)
        self.log = open(os.path.join(user.session, "containerd.log"), "w")  # noqa: SIM115
        script = START.format(config=config)
        command = [*enter, "sh", "-c", script]
        self.process = user.start(command, stdout=self.log.fileno(), stderr=self.log.fileno())
        eventually(lambda: self("ctr", "version").returncode == 0, "an answer of containerd")

    def __call__(self, *args: str) -> Result:
        """Run a command where the daemon is."""
        pid = str(self.process.pid)
        enter = ["nsenter", "--target", pid, "--user", "--preserve-credentials", "--mount"]
        address = os.path.join(self.user.runtime_dir, "containerd/socket")
        return self.user.run([*enter, *args], env={"CONTAINERD_ADDRESS": address}, timeout=60)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


WAYS = {
    "emulate": (COMMAND, "emulate", "--"),
    "unshare": ("unshare", "--user", "--map-root-user", "--mount"),
}


@pytest.fixture(scope="module", params=WAYS)
def containerd(request: pytest.FixtureRequest, account: Account) -> Iterator[Containerd]:
    user = Unprivileged(account)
    try:
        containerd = Containerd(user, *WAYS[request.param])
        yield containerd
        containerd.close()
        eventually(lambda: not user.leftovers(), lambda: "\n".join(user.leftovers()))
    finally:
        user.close()


@pytest.fixture(scope="module")
def rootfs(containerd: Containerd, trees: Trees) -> str:
    directory = trees.new_directory("containerd", for_user=True)
    archive = busybox_layer(f"{directory}/layer.tar", FILES)
    with open(archive, "rb") as source:
        command = [COMMAND, "bundle", "-", f"{directory}/bundle"]
        containerd.user.run(command, stdin=source.fileno()).check()
    return f"{directory}/bundle/rootfs"


def ctr_run(*words: str) -> list[str]:
    return ["ctr", "run", "--net-host", "--runc-binary", COMMAND, "--env", "PATH=/bin", *words]


def directories(containerd: Containerd, container: str) -> list[str]:
    """Return the private directories of a container."""
    names = os.listdir(os.path.join(containerd.user.runtime_dir, "runrootless"))
    return [name for name in names if container in name]


def test_a_root_file_system(containerd: Containerd, rootfs: str) -> None:
    script = "id; touch /srv/new; chown 5:6 /srv/new; stat -c '%u:%g %n' /srv/*"
    done = containerd(*ctr_run("--rm", "--rootfs", rootfs, "one", "/bin/sh", "-c", script)).check()
    assert done.stdout.startswith("uid=0(root) gid=0(root)")
    assert done.stdout.endswith("\n5:6 /srv/new\n33:44 /srv/page\n")


def test_a_network_of_its_own(containerd: Containerd, rootfs: str) -> None:
    words = [word for word in ctr_run("--rm", "--rootfs", rootfs, "net") if word != "--net-host"]
    done = containerd(*words, "/bin/cat", "/proc/net/dev").check()
    assert re.findall(r"^ *([^:\s]+):", done.stdout, re.MULTILINE) == ["lo"]


def test_a_task_in_the_background(containerd: Containerd, rootfs: str) -> None:
    containerd(*ctr_run("--detach", "--rootfs", rootfs, "two", "/bin/sleep", "1000")).check()
    run = ["ctr", "task", "exec", "--exec-id", "x", "--user", "33:33", "two"]
    assert containerd(*run, "/bin/id", "-u").check().stdout == "33\n"
    assert re.search(r"^two +\d+ +RUNNING", containerd("ctr", "task", "ls").stdout, re.MULTILINE)
    containerd("ctr", "task", "kill", "--signal", "KILL", "two").check()
    eventually(lambda: "STOPPED" in containerd("ctr", "task", "ls").stdout, "the end of the task")
    assert "non-zero exit code 137" in containerd("ctr", "task", "rm", "two").check().stderr
    containerd("ctr", "container", "rm", "two").check()
    eventually(lambda: not directories(containerd, "two"), "the end of the agent")


def test_an_image_of_roots_files(containerd: Containerd, trees: Trees) -> None:
    directory = trees.new_directory("containerd-image", for_user=False)
    layer = busybox_layer(f"{directory}/layer.tar", [])
    archive = docker_archive(f"{directory}/image.tar", "docker.io/library/small:latest", [layer])
    containerd("ctr", "image", "import", "--snapshotter", "native", archive).check()
    image = ["--rm", "--snapshotter", "native", "docker.io/library/small:latest", "three"]
    script = "touch /x; chown 5:6 /x; stat -c %u:%g /x"
    assert containerd(*ctr_run(*image, "/bin/sh", "-c", script)).check().stdout == "5:6\n"


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
@pytest.mark.parametrize("containerd", ["emulate"], indirect=True)
def test_an_image(snapshotter: str, containerd: Containerd, trees: Trees) -> None:
    directory = trees.new_directory("containerd-image", for_user=False)
    layers = [
        busybox_layer(f"{directory}/lower.tar", FILES),
        layer(f"{directory}/upper.tar", [File("srv/page", 5, 6, 0o640)]),
    ]
    archive = docker_archive(f"{directory}/image.tar", "docker.io/library/any:latest", layers)
    snapshots = ["--snapshotter", snapshotter]
    containerd("ctr", "image", "import", *snapshots, archive).check()
    image = ["--rm", *snapshots, "docker.io/library/any:latest", "four"]
    script = "id -u; touch /srv/new; chown 7:8 /srv/new; stat -c '%u:%g %a %n' /srv /srv/*"
    done = containerd(*ctr_run(*image, "/bin/sh", "-c", script)).check()
    assert done.stdout == "0\n33:33 2755 /srv\n7:8 644 /srv/new\n5:6 640 /srv/page\n"
    # Not for those who come after it.
    assert containerd(*ctr_run(*image, "/bin/ls", "/srv")).check().stdout == "page\n"


@pytest.mark.parametrize("containerd", ["unshare"], indirect=True)
def test_another_image_is_containerds_error(containerd: Containerd, trees: Trees) -> None:
    directory = trees.new_directory("containerd-image", for_user=False)
    layer = busybox_layer(f"{directory}/layer.tar", FILES)
    archive = docker_archive(f"{directory}/image.tar", "docker.io/library/other:latest", [layer])
    done = containerd("ctr", "image", "import", "--snapshotter", "native", archive)
    assert done.returncode != 0
    assert "Lchown" in done.stderr and "invalid argument" in done.stderr
