"""podman and buildah under `emulate`: what they themselves do to the owners of files."""

import json
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator

import pytest

from support.engines import ClusterUser, Engine, make_context, podman_user
from support.images import File, busybox_layer, docker_archive
from support.processes import Result, eventually
from support.trees import Trees, debian_archive
from support.users import AS_ROOT, Account

DEBIAN = "localhost/debian"
SMALL = "localhost/small"
FILES = [File("srv/", 33, 44, 0o2755), File("srv/page", 33, 44), File("srv/far", 70000, 2**31)]
SHOW = "stat -c '%u:%g %n'"


@pytest.fixture(scope="module")
def user(account: Account) -> Iterator[ClusterUser]:
    with podman_user(account) as user:
        yield user


@pytest.fixture(scope="module")
def podman(user: ClusterUser, trees: Trees) -> Engine:
    """podman as it is without, with the images."""
    podman = Engine(user, "podman")
    directory = trees.new_directory("images", for_user=False)
    small = busybox_layer(f"{directory}/layer.tar", FILES)
    for tag, layer in ((SMALL, small), (DEBIAN, debian_archive("debian"))):
        archive = docker_archive(f"{directory}/image.tar", f"{tag}:latest", [layer])
        podman("load", "--quiet", "--input", archive, timeout=900).check()
    trees.discard(directory)
    return podman


@pytest.fixture
def emulate(podman: Engine) -> Iterator[Callable[[str], Engine]]:
    """A program under `emulate`; in the end no agent may be left."""
    command = os.path.join(podman.user.home, "bin/runrootless")
    yield lambda program: Engine(podman.user, command, "emulate", "--", program)
    left = podman("ps", "--all", "--noheading").check().stdout
    eventually(lambda: not podman.agents(), lambda: "\n".join(podman.agents()))
    assert (left, os.listdir(f"{podman.user.runtime_dir}/runrootless")) == ("", [])


Emulate = Callable[[str], Engine]


def run(podman: Engine, image: str, script: str) -> Result:
    """Run a script in a container as it is without `emulate`."""
    return podman("run", "--rm", "--network", "host", image, "sh", "-c", script).check()


Members = dict[str, tuple[str, int, bytes]]


def members(path: str) -> Members:
    """Return what an archive's layers say of each file, the upper layer's word counting."""
    found: Members = {}
    with tarfile.open(path) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        for name in json.load(manifest)[0]["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(name)) as layer:
                found.update(
                    {f"/{m.name}": (f"{m.uid}:{m.gid}", m.mode & 0o7777, m.type) for m in layer}
                )
    os.unlink(path)
    return found


def owners_in_layers(podman: Engine, image: str) -> dict[str, str]:
    """Return the owners that the tars of an image's layers name."""
    path = os.path.join(podman.user.home, "saved.tar")
    podman("save", "--quiet", "--output", path, image).check()
    return {name: member[0] for name, member in members(path).items()}


CONTAINERFILE = f"""\
FROM {DEBIAN}
RUN apt-get update && apt-get install -y cowsay && rm -r /var/lib/apt/lists
COPY --chown=www-data:mail page /srv/page
ADD --chown=games directory /srv/directory
RUN adduser --system --group app && adduser app mail && stat -c '%U:%G %n' /srv/page
WORKDIR /work
USER app
WORKDIR /work/own
RUN id && touch made && stat -c '%U:%G %n' . made /etc/shadow
"""
SAID = ("www-data:mail /srv/page", "app:app .", "app:app made", "root:shadow /etc/shadow")


def test_build(emulate: Emulate, podman: Engine, user: ClusterUser) -> None:
    context = make_context(user, CONTAINERFILE, {"page": "hello\n"})
    os.makedirs(f"{context}/directory/below")
    build = ["build", "--network", "host", "--tag", "built", context]
    done = emulate("podman")(*build, timeout=900).check()
    said = done.stdout.splitlines()
    assert [line for line in SAID if line not in said] == []
    assert [line for line in said if re.match(r"uid=\d+\(app\) .*\(app\),8\(mail\)", line)]
    show = "stat -c '%U:%G %n' . made /work /srv/page /srv/directory/below; /usr/games/cowsay hi"
    done = run(podman, "built", f"id -un; {show}")
    assert done.stdout.startswith(
        "app\napp:app .\napp:app made\napp:app /work\n"
        "www-data:mail /srv/page\ngames:games /srv/directory/below\n"
    )
    assert "< hi >" in done.stdout
    owners = owners_in_layers(podman, "built")
    assert owners["/srv/page"] == "33:8"
    assert owners["/srv/directory/below"] == "5:60"
    assert owners["/etc/shadow"] == "0:42"
    assert owners["/work/own/made"] == owners["/work/own"] != "0:0"


MOUNTED = ("/dev", "/etc", "/proc", "/run", "/sys")
OWNERS = f"""\
FROM {SMALL}
COPY --chown=www-data page /srv/
COPY --chown=5:6 --chmod=4711 page /program
ADD --chown=33 directory /srv/directory
RUN chown 0:7 /srv/far && touch /new && chown 8 /new && chmod 2750 /new
WORKDIR /work
USER www-data
WORKDIR /work/own
RUN touch made && busybox ln -s made link
"""


@pytest.mark.skipif(not AS_ROOT, reason="the oracle is the real root")
def test_layers_are_the_same_as_the_real_roots(
    emulate: Emulate, podman: Engine, user: ClusterUser, trees: Trees
) -> None:
    context = make_context(user, OWNERS, {"page": "hello\n"})
    os.makedirs(f"{context}/directory/below")
    oracle = trees.new_directory("oracle", for_user=False)
    podman("save", "--quiet", "--output", f"{user.home}/small.tar", SMALL).check()
    buildah = ["buildah", "--root", f"{oracle}/root", "--runroot", f"{oracle}/run"]
    buildah += ["--storage-driver", "vfs"]
    # Which it writes to whatever it is told.
    script = 'mount -t tmpfs none /var/lib && mount -t tmpfs none /etc/cni && exec "$@"'
    buildah = ["unshare", "--mount", "sh", "-c", script, "sh", *buildah]
    # Left to itself it wants to raise them, which not every machine lets its root.
    limits = ["--ulimit", "nproc=1024:1024", "--ulimit", "nofile=1024:1024"]
    bud = ["bud", "--isolation", "chroot", *limits]
    for command in (
        ["pull", "--quiet", f"docker-archive:{user.home}/small.tar"],
        [*bud, "--layers", "--tag", "same", context],
        ["push", "--quiet", "same", f"docker-archive:{oracle}/same.tar"],
    ):
        done = subprocess.run([*buildah, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    expected = members(f"{oracle}/same.tar")
    assert expected["/program"][:2] == ("5:6", 0o4711)
    assert expected["/new"][:2] == ("8:0", 0o2750)
    # A known limit: the owners of symlinks are not kept in layers.
    assert expected.pop("/work/own/link")[0] == "33:33"
    emulate("podman")("build", "--network", "host", "--tag", "same", context).check()
    podman("save", "--quiet", "--output", f"{user.home}/same.tar", "same").check()
    found = members(f"{user.home}/same.tar")
    # What is mounted upon is made for a runtime and for a chroot differently.
    compared = [name for name in expected if not name.startswith(MOUNTED)]
    assert [(n, found.get(n)) for n in compared] == [(n, expected[n]) for n in compared]
    added = [name for name in found.keys() - expected.keys() if not name.startswith(MOUNTED)]
    assert added == ["/work/own/link"]
    trees.discard(oracle)


@pytest.mark.parametrize("isolation", ["oci", "chroot"])
def test_buildah(isolation: str, emulate: Emulate, podman: Engine, user: ClusterUser) -> None:
    lines = f"COPY --chown=5:6 page /page\nUSER www-data\nRUN id; {SHOW} /page /srv/*"
    context = make_context(user, f"FROM {SMALL}\n{lines}\n", {"page": ""})
    bud = ["bud", "--isolation", isolation, "--network", "host", "--tag", "by-buildah", context]
    if isolation == "oci":
        bud[1:1] = ["--runtime", os.path.join(user.home, "bin/runrootless")]
    done = emulate("buildah")(*bud).check()
    assert "uid=33(www-data) gid=33(www-data) groups=33(www-data)" in done.stdout
    expected = f"5:6 /page\n70000:{2**31} /srv/far\n33:44 /srv/page\n"
    assert expected in done.stdout
    assert run(podman, "by-buildah", f"{SHOW} /page /srv/*").stdout == expected
    assert owners_in_layers(podman, "by-buildah")["/page"] == "5:6"


def test_a_copy_into_a_directory_of_an_image_that_never_ran(
    emulate: Emulate, podman: Engine, user: ClusterUser, trees: Trees
) -> None:
    directory = trees.new_directory("image", for_user=False)
    layer = busybox_layer(f"{directory}/layer.tar", [*FILES, File("srv/fresh")])
    archive = docker_archive(f"{directory}/image.tar", "localhost/fresh:latest", [layer])
    podman("load", "--quiet", "--input", archive).check()
    trees.discard(directory)
    context = make_context(user, "FROM localhost/fresh\nCOPY page /srv/new\n", {"page": ""})
    emulate("podman")("build", "--tag", "copied", context).check()
    assert run(podman, "copied", f"{SHOW} /srv /srv/new").stdout == "33:44 /srv\n0:0 /srv/new\n"
    assert owners_in_layers(podman, "copied")["/srv"] == "33:44"


def test_the_layer_of_a_container_is_committed_with_its_owners(
    emulate: Emulate, podman: Engine
) -> None:
    script = "touch /srv/new; chown 5:6 /srv/new"
    podman("run", "--name", "one", "--network", "host", SMALL, "sh", "-c", script).check()
    emulate("podman")("commit", "--quiet", "one", "committed").check()
    podman("rm", "one").check()
    assert owners_in_layers(podman, "committed")["/srv/new"] == "5:6"
    assert run(podman, "committed", f"{SHOW} /srv/new").stdout == "5:6 /srv/new\n"


def test_an_image_that_is_unpacked_there(
    emulate: Emulate, podman: Engine, user: ClusterUser
) -> None:
    path = os.path.join(user.home, "image.tar")
    podman("save", "--quiet", "--output", path, SMALL).check()
    # Without the option that all files are root's then.
    storage = ["--root", f"{user.home}/other", "--runroot", f"{user.runtime_dir}/other"]
    storage += ["--storage-driver", "overlay", "--storage-opt", "overlay.mountopt=nodev"]
    emulate("podman")(*storage, "load", "--quiet", "--input", path).check()
    image = ["run", "--rm", "--network", "host", SMALL, "sh", "-c", f"{SHOW} /srv/page"]
    for engine in (podman, emulate("podman")):
        assert engine(*storage, *image).check().stdout == "33:44 /srv/page\n"
    podman(*storage, "system", "reset", "--force").check()
    os.unlink(path)


def test_a_new_volume_for_another_user(emulate: Emulate, podman: Engine) -> None:
    mine = ["run", "--rm", "--network", "host", "-v", "new:/data"]
    command = ["--user", "1000", SMALL, "touch", "/data/file"]
    emulate("podman")(*mine, *command).check()
    show = ["stat", "-c", "%u:%g", "/data", "/data/file"]
    assert podman(*mine, SMALL, *show).check().stdout == "1000:0\n1000:0\n"
    podman("volume", "rm", "new").check()


def test_a_container_that_stays_is_entered_from_nowhere_else(
    emulate: Emulate, podman: Engine
) -> None:
    command = ["run", "--detach", "--name", "web", "--network", "host", SMALL, "sleep", "1000"]
    emulate("podman")(*command).check()
    assert "can only be entered there" in podman("exec", "web", "id").stderr
    podman("stop", "--time", "0", "web").check()
    podman("start", "web").check()
    assert podman("exec", "web", "id", "-u").check().stdout == "0\n"
    podman("rm", "--force", "--time", "0", "web").check()
