"""``runrootless bundle``: all that a bundle may be made of, and what is in its configuration."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
from typing import Any

import pytest

from support.bundles import Bundle
from support.committed import manifest_of, umoci_unpack
from support.containers import Runrootless
from support.images import busybox_layer
from support.layers import File, Layout, compress, directory, symlink, tar, whiteout
from support.trees import Trees, alpine_archive
from support.users import AS_ROOT

FILES = [directory("etc"), File("etc/which", content=b"this one", uid=5, gid=6)]
SECOND = [File("etc/second", content=b"2"), whiteout("etc/nothing")]


class Place:
    """Where bundles are made."""

    def __init__(self, runrootless: Runrootless, trees: Trees) -> None:
        self.runrootless = runrootless
        self.path = trees.new_directory("place", for_user=True)
        self.layout = Layout(trees.new_directory("layout", for_user=False))
        self._count = 0

    def make(self, source: str, *words: str, input: str | None = None) -> str:
        """Make a bundle; return its path."""
        self._count += 1
        bundle = f"{self.path}/{self._count}"
        options = [word for word in words if word.startswith("--")]
        command = [word for word in words if not word.startswith("--")]
        self.runrootless("bundle", *options, source, bundle, *command, input=input).check()
        return bundle

    def refused(self, source: str, *options: str) -> str:
        """Return what is said of a source of which no bundle is made."""
        done = self.runrootless("bundle", *options, source, f"{self.path}/none").check(1)
        assert not os.path.exists(f"{self.path}/none")
        lines = done.stderr.splitlines()
        # Behind what is told of the work.
        assert [line for line in lines if not line.startswith("runrootless: unpacking")] == [
            lines[-1]
        ], done
        return lines[-1]

    def config(self, config: dict[str, Any], files: list[File], *words: str) -> dict[str, Any]:
        """Return the config.json that becomes of an image's configuration."""
        self.layout.add(f"image{self._count}", [files], config=config)
        bundle = self.make(f"oci:{self.layout.path}:image{self._count}", *words)
        with open(f"{bundle}/config.json") as file:
            made: dict[str, Any] = json.load(file)
        return made


@pytest.fixture
def place(runrootless: Runrootless, trees: Trees) -> Place:
    return Place(runrootless, trees)


def which(bundle: str) -> str:
    with open(f"{bundle}/rootfs/etc/which") as file:
        return file.read()


PACKS: dict[str, Any] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": lambda data: compress(data, "zstd")[0],
    "members": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + bytes(512),
    "no end": lambda data: data[: len(data.rstrip(b"\0")) + 511 & ~511],
}


@pytest.mark.parametrize(
    ("pack", "form"),
    [
        *((pack, tarfile.PAX_FORMAT) for pack in PACKS),
        ("plain", tarfile.GNU_FORMAT),
        ("plain", tarfile.USTAR_FORMAT),
    ],
)
def test_the_tar_of_a_root_file_system(place: Place, pack: str, form: int) -> None:
    path = f"{place.path}/rootfs.tar"
    with open(path, "wb") as file:
        file.write(PACKS[pack](tar([*FILES, File("e" * 90 + "/" + "f" * 60)], form)))
    bundle = place.make(path)
    assert which(bundle) == "this one"
    assert os.path.exists(f"{bundle}/rootfs/{'e' * 90}/{'f' * 60}")


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=posix", "--sparse-version=0.0"],
        ["--format=posix", "--sparse-version=0.1"],
        ["--format=posix", "--sparse-version=1.0"],
    ],
    ids=["gnu", "0.0", "0.1", "1.0"],
)
def test_sparse_files(place: Place, options: list[str]) -> None:
    made = f"{place.path}/made"
    os.mkdir(made)
    for name, parts in {"holes": range(0, 60, 3), "end": [5], "hole": []}.items():
        with open(f"{made}/{name}", "wb") as file:
            for part in parts:
                file.seek(part << 20)
                file.write(b"%d" % part * 1000)
            file.truncate(100 << 20)
    archive = f"{place.path}/sparse.tar"
    subprocess.run(["tar", "--sparse", *options, "-C", made, "-cf", archive, "."], check=True)
    assert os.stat(archive).st_size < 2 << 20
    bundle = place.make(archive)
    for name in os.listdir(made):
        found = f"{bundle}/rootfs/{name}"
        subprocess.run(["cmp", f"{made}/{name}", found], check=True)
        assert os.stat(found).st_blocks < 4096


def test_archives_of_images(place: Place) -> None:
    place.layout.add("image", [FILES, SECOND])
    if not AS_ROOT:
        pytest.skip("skopeo's policy is root's")
    for kind in ("oci-archive", "docker-archive"):
        archive = f"{place.path}/{kind}.tar"
        copy = ["skopeo", "copy", "--quiet", f"oci:{place.layout.path}:image"]
        subprocess.run([*copy, f"{kind}:{archive}:some/name:1"], check=True, capture_output=True)
        assert which(place.make(f"{kind}:{archive}")) == "this one"
        name = "some/name:1"
        bundle = place.make(f"{kind}:{archive}:{name}")
        with open(f"{bundle}/image.json") as file:
            about = json.load(file)
        config = json.loads(about["config"]["raw"])
        assert [one["diff_id"] for one in about["layers"]] == config["rootfs"]["diff_ids"]
        assert "name" in place.refused(f"{kind}:{archive}:other:1")
        with open(archive, "rb") as plain, gzip.open(f"{archive}.gz", "wb") as packed:
            packed.write(plain.read())
        assert which(place.make(f"{kind}:{archive}.gz")) == "this one"


def test_what_docker_saves(place: Place) -> None:
    """As older versions do it, with layers that are symlinks; two images in one archive."""
    layer = tar(FILES)
    config = {"rootfs": {"type": "layers", "diff_ids": []}}
    buffer = io.BytesIO()
    entries: list[File] = [File("one/layer.tar", content=layer), directory("two")]
    entries.append(symlink("two/layer.tar", "../one/layer.tar"))
    listed = []
    for name in ("one", "two"):
        config["rootfs"]["diff_ids"] = [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
        entries.append(File(f"{name}.json", content=json.dumps(config).encode()))
        listed.append(
            {"Config": f"{name}.json", "RepoTags": [f"{name}:1"], "Layers": [f"{name}/layer.tar"]}
        )
    entries.append(File("manifest.json", content=json.dumps(listed).encode()))
    buffer.write(tar(entries))
    path = f"{place.path}/saved.tar"
    with open(path, "wb") as file:
        file.write(buffer.getvalue())
    assert which(place.make(f"docker-archive:{path}:two:1")) == "this one"
    assert which(place.make(f"docker-archive:{path}:@0")) == "this one"
    assert "one:1, two:1" in place.refused(f"docker-archive:{path}")


def test_names_in_a_layout(place: Place) -> None:
    place.layout.add("one", [FILES])
    assert which(place.make(f"oci:{place.layout.path}")) == "this one"
    place.layout.add("two", [[directory("etc"), File("etc/which", content=b"another")]])
    assert "one, two" in place.refused(f"oci:{place.layout.path}")
    assert "'three'" in place.refused(f"oci:{place.layout.path}:three")
    assert which(place.make(f"oci:{place.layout.path}:two")) == "another"


def test_platforms_of_the_only_image(place: Place) -> None:
    place.layout.add("here", [FILES]).add("other", [FILES], architecture="s390x")
    here, other = (f"oci:{place.layout.path}:{name}" for name in ("here", "other"))
    for platform in ("linux/amd64", "amd64", "linux/amd64/v2"):
        place.make(here, f"--platform={platform}")
    for source, platform in ((here, "linux/arm64"), (here, "windows/amd64"), (other, "amd64")):
        assert f"{source} is for linux/" in place.refused(source, f"--platform={platform}")
    place.make(other, "--platform=linux/s390x")
    done = place.runrootless("bundle", other, f"{place.path}/other").check()
    assert "is for linux/s390x, and this machine is linux/amd64" in done.stderr


def test_a_flag_behind_the_directory(place: Place) -> None:
    place.layout.add("one", [FILES])
    source, bundle = f"oci:{place.layout.path}", f"{place.path}/behind"
    done = place.runrootless("bundle", source, bundle, "--tty").check(1)
    assert "flags come before SOURCE" in done.stderr and not os.path.exists(bundle)
    place.runrootless("bundle", source, bundle, "--", "--tty").check()
    with open(f"{bundle}/config.json") as file:
        assert json.load(file)["process"]["args"] == ["--tty"]


def test_a_user_that_the_image_has_not(place: Place) -> None:
    place.layout.add("one", [FILES], config={"User": "nobody"})
    source = f"oci:{place.layout.path}"
    assert "its /etc/passwd has no 'nobody': it is broken" in place.refused(source)
    said = place.refused(source, "--user=some:7")
    assert "--user some:7: the image's /etc/passwd has no 'some': give the number" in said


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("debian", "debian: No such file"),
        ("alpine:3.20", "docker://alpine:3.20"),
        ("docker://Debian", "in lower case"),
        ("docker://debian:a b", "no tag"),
        ("docker://debian@sha256:1", "no digest"),
        ("debian:no/suite", "no suite"),
        ("debian:", "debian:bookworm"),
        ("oci:", "say oci:PATH"),
        ("https://x.example/y.tar", "`curl -fsSL https://x.example/y.tar |"),
        ("oci:/nowhere", "index.json"),
        ("docker-archive:/nowhere", "/nowhere"),
        ("/", "oci:/"),
    ],
)
def test_what_is_no_source(place: Place, source: str, said: str) -> None:
    assert said in place.refused(source)


def test_what_the_image_says_becomes_the_configuration(place: Place) -> None:
    accounts = [
        directory("etc"),
        symlink("etc/passwd", "/data/passwd"),
        symlink("etc/group", "../../../data/group"),
        directory("data"),
        File("data/passwd", content=b"root:x:0:0::/root:/bin/sh\nweb:x:33:44::/srv:/bin/sh\n"),
        File("data/group", content=b"root:x:0:\nweb:x:44:\nextra:x:50:other,web\n"),
    ]
    image = {
        "User": "web",
        "Entrypoint": ["/entry", "-x"],
        "Cmd": ["serve"],
        "Env": ["A=1", "PATH=/bin"],
        "WorkingDir": "/srv",
        "Labels": {"a.label": "of ours", "org.runrootless.engine": "none", "run.oci.handler": "x"},
        "StopSignal": "SIGQUIT",
        "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
    }
    made = place.config(image, accounts)
    process = made["process"]
    assert process["user"] == {"uid": 33, "gid": 44, "additionalGids": [50]}
    assert process["args"] == ["/entry", "-x", "serve"]
    assert process["env"] == ["A=1", "PATH=/bin"]
    assert (process["cwd"], process["terminal"]) == ("/srv", False)
    assert made["root"] == {"path": "rootfs", "readonly": False}
    assert made["annotations"] == {
        "a.label": "of ours",
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.architecture": "amd64",
        "org.opencontainers.image.created": "2024-01-02T03:04:05Z",
        "org.opencontainers.image.stopSignal": "SIGQUIT",
        "org.opencontainers.image.exposedPorts": "443/tcp,80/tcp",
    }
    for user, expected in {
        "0": {"uid": 0, "gid": 0},
        "33": {"uid": 33, "gid": 44},
        "1234": {"uid": 1234, "gid": 0},
        "web:50": {"uid": 33, "gid": 50},
        "1234:extra": {"uid": 1234, "gid": 50},
    }.items():
        assert place.config({"User": user}, accounts)["process"]["user"] == expected
    changed = place.config(image, accounts, "--user=0:7", "--tty", "other", "command")
    assert changed["process"]["args"] == ["/entry", "-x", "other", "command"]
    assert changed["process"]["user"] == {"uid": 0, "gid": 7}
    assert changed["process"]["terminal"] is True
    plain = place.config({}, [File("x")])["process"]
    assert (plain["args"], plain["cwd"]) == (["sh"], "/")
    place.layout.add("broken", [accounts], config={"User": "nobody"})
    done = place.runrootless("bundle", f"oci:{place.layout.path}:broken", f"{place.path}/none")
    assert done.returncode == 1 and "no 'nobody'" in done.stderr
    assert not os.path.exists(f"{place.path}/none")


@pytest.mark.skipif(not AS_ROOT, reason="only root's umoci unpacks all of an image")
def test_volumes(place: Place, trees: Trees) -> None:
    """conversion.md: mounts with what the image has there, which are in no new image."""
    base = busybox_layer(f"{place.path}/base.tar", [])
    with open(base, "rb") as packed:
        shell = packed.read()
    files = [
        directory("data", mode=0o2770, uid=33, gid=34),
        File("data/file", content=b"seed", uid=5, gid=6),
        directory("data/inner", mode=0o700, uid=7),
        symlink("data/inner/link", "nowhere", uid=8, gid=9),
        File("data/inner/null", "character", device=(1, 3), uid=1, mode=0o640),
        symlink("var", "real"),
        directory("real"),
        File("real/file", content=b"x"),
        File("taken"),
    ]
    names = ["/data", "/data/inner", "new/one", "/var/lib", "/taken", "/proc", "/", "/dev/shm/x"]
    config: dict[str, Any] = {"Volumes": {name: {} for name in names}, "Cmd": ["none"]}
    place.layout.tag("image", place.layout.manifest([shell, tar(files)], config=config))
    path = f"{place.path}/volumes"
    source = f"oci:{place.layout.path}:image"
    done = place.runrootless("bundle", "--quiet", source, path).check()
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == [
        " the volume / is left out",
        " the volume /dev/shm/x is left out",
        " the volume /proc is left out",
        " the volume /taken stays in the root file system",
    ]
    with open(f"{path}/config.json") as file:
        mounts = json.load(file)["mounts"]
    assert {one["destination"]: one["source"] for one in mounts if one["type"] == "bind"} == {
        "/data": "volumes/0",
        "/new/one": "volumes/1",
        "/var/lib": "volumes/2",
    }
    # Everything is where it was, wherever the bundle is.
    os.rename(path, f"{path}-moved")
    bundle = Bundle(f"{path}-moved", f"{path}-moved/rootfs")
    show = "cd /data; stat -c '%n %F %u:%g %a %t:%T' . file inner inner/link inner/null"
    change = "echo more >/data/file; mkdir /data/d /var/lib/d; echo y >/real/file; rm inner/link"
    done = place.runrootless.run(bundle.script(f"{show}; cat file; {change}")).check()
    assert done.stdout.splitlines() == [
        ". directory 33:34 2770 0:0",
        "file regular file 5:6 644 0:0",
        "inner directory 7:0 700 0:0",
        "inner/link symbolic link 8:9 777 0:0",
        "inner/null character special file 1:0 640 1:3",
        "seed",
    ]
    shown = place.runrootless.run(bundle.script(f"{show}; cat file; ls /var/lib")).stdout
    assert shown.endswith("more\nd\n")
    layout = f"{place.path}/new"
    said = "what is in the volume {} is left out"
    expected = [f"runrootless: {said.format(name)}" for name in ("/data", "/var/lib")]
    done = place.runrootless("commit", bundle.path, f"oci:{layout}:x").check()
    assert done.stderr.splitlines() == expected
    manifest, about = manifest_of(layout, "x")
    assert about["config"]["Volumes"] == config["Volumes"]
    layer = f"{layout}/blobs/{manifest['layers'][-1]['digest'].replace(':', '/')}"
    with tarfile.open(layer) as read:
        written = set(read.getnames())
    # Besides what the runtime makes for its own mounts.
    written = {name for name in written if not name.startswith(("dev", "etc", "proc", "sys"))}
    assert written - {"."} == {"real", "real/file"}
    root = umoci_unpack(f"{layout}:x", trees.new_directory("umoci", for_user=False))
    with open(f"{root}/data/file") as kept:
        assert kept.read() == "seed"
    assert os.lstat(f"{root}/data/inner/link").st_uid == 8
    done = place.runrootless("export", bundle.path, f"{place.path}/all.tar").check()
    assert done.stderr.splitlines() == expected


def test_volumes_that_lead_elsewhere(place: Place) -> None:
    """They begin in the root file system, and what is said of them is a line each."""
    outside = f"{place.path}/outside"
    os.mkdir(outside)
    base = busybox_layer(f"{place.path}/base.tar", [])
    with open(base, "rb") as packed:
        shell = packed.read()
    files = [
        symlink("out", outside),
        symlink("procfs", "/proc"),
        symlink("magic", "/proc/self/cwd"),
    ]
    names = [
        "/out/v",
        "/procfs/v",
        "/magic",
        "/procfs",
        "/new\nline",
        "/a:b",
        "/\x1b[31m",
        "/bad\0\x1b",
    ]
    config: dict[str, Any] = {"Volumes": {name: {} for name in names}, "Cmd": ["none"]}
    config["Labels"] = {"org.runrootless.\x1b": "x"}
    place.layout.tag("elsewhere", place.layout.manifest([shell, tar(files)], config=config))
    path = f"{place.path}/elsewhere"
    source = f"oci:{place.layout.path}:elsewhere"
    done = place.runrootless("bundle", "--quiet", source, path).check()
    said = done.stderr.splitlines()
    assert all(line.startswith("runrootless: ") and line.isprintable() for line in said), said
    assert sum("is left out: the bundle mounts something else there" in line for line in said) == 4
    script = "for v in /out/v '/new\nline' /a:b '/\x1b[31m'; do echo x >\"$v/f\" || exit 9; done"
    bundle = Bundle(path, f"{path}/rootfs")
    done = place.runrootless.run(bundle.script(f"{script}; ls -d /proc/self/status")).check()
    assert done.stdout == "/proc/self/status\n"
    assert [os.listdir(f"{path}/volumes/{number}") for number in range(4)] == [["f"]] * 4
    assert len(os.listdir(f"{path}/volumes")) == 4 and not os.listdir(outside)
    done = place.runrootless("export", path, f"{place.path}/elsewhere.tar").check()
    lines = done.stderr.splitlines()
    assert len(lines) == 4 and all(line.isprintable() for line in lines), lines


def test_a_container_of_it(place: Place) -> None:
    archive = alpine_archive()
    if archive is None:
        pytest.skip("no alpine-minirootfs-*.tar.gz in $RUNROOTLESS_TEST_IMAGES")
    script = "id -u; stat -c %U:%G:%a /etc/shadow; ls -ld /tmp | cut -c1-10"
    with open(archive, "rb") as source:
        command = place.runrootless.command("bundle", "-", f"{place.path}/1", "sh", "-c", script)
        place.runrootless.user.run(command, stdin=source.fileno()).check()
    done = place.runrootless.run(Bundle(f"{place.path}/1", f"{place.path}/1/rootfs")).check()
    assert done.stdout == "0\nroot:shadow:640\ndrwxrwxrwt\n"


def _commit(place: Place, bundle: str, *words: str) -> list[str]:
    """Change a bundle, and return the digests of the layers of the image that is made of it."""
    with open(f"{bundle}/rootfs/etc/new", "w") as file:
        file.write("new")
    place.runrootless.user.give(file.name)
    layout = f"{bundle}-image"
    place.runrootless("commit", *words, bundle, f"oci:{layout}:x").check()
    assert which(place.make(f"oci:{layout}:x")) == "this one"
    return [layer["digest"] for layer in manifest_of(layout, "x")[0]["layers"]]


@pytest.mark.parametrize("end", ["", ".gz"])
def test_what_came_of_an_archive_is_built_upon(place: Place, end: str) -> None:
    place.layout.add("image", [FILES, SECOND])
    digests = [one["digest"] for one in place.layout.manifest_of("image")["layers"]]
    archive = f"{place.path}/image.tar{end}"
    subprocess.run(["tar", "-C", place.layout.path, "-acf", archive, "."], check=True)
    bundle = place.make(f"oci-archive:{archive}")
    shutil.move(archive, f"{archive}.away")
    done = place.runrootless("commit", bundle, f"oci:{place.path}/none").check(1)
    assert len(done.stderr.splitlines()) == 1
    assert f"{digests[0]} of oci-archive:{archive} is not there any more" in done.stderr
    assert "--squash" in done.stderr
    # Another image under the same name has not these layers.
    place.layout.add("other", [[directory("etc"), File("etc/other")]])
    shutil.rmtree(f"{place.layout.path}/blobs")
    subprocess.run(["tar", "-C", place.layout.path, "-acf", archive, "."], check=True)
    assert "--squash" in place.runrootless("commit", bundle, f"oci:{place.path}/none").stderr
    shutil.move(f"{archive}.away", archive)
    made = _commit(place, bundle)
    assert made[:2] == digests and len(made) == 3
    os.unlink(archive)
    # By now they are in the cache.
    assert _commit(place, bundle)[:2] == digests


@pytest.mark.skipif(not AS_ROOT, reason="skopeo's policy is root's")
def test_what_came_of_the_storage_of_podman_is_built_upon(place: Place) -> None:
    place.layout.add("image", [FILES, SECOND])
    user = place.runrootless.user
    storage = f"{place.path}/storage.conf"
    with open(storage, "w") as file:
        file.write(
            f"[storage]\ndriver = 'vfs'\ngraphroot = '{place.path}/graph'\n"
            f"runroot = '{place.path}/run'\n"
            "[storage.options.vfs]\nignore_chown_errors = 'true'\n"
        )
    user.give(storage)
    env = {"CONTAINERS_STORAGE_CONF": storage}
    image = "localhost/some/name:1"
    copy = ["skopeo", "copy", "--quiet", f"oci:{place.layout.path}:image"]
    user.run([*copy, f"containers-storage:{image}"], env=env).check()
    bundle = f"{place.path}/stored"
    place.runrootless("bundle", f"containers-storage:{image}", bundle, env=env).check()
    assert which(bundle) == "this one"
    assert sorted(os.listdir(bundle)) == ["config.json", "image.json", "rootfs", "snapshot"]
    assert len(_commit(place, bundle)) == 3
