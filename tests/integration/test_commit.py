"""Images of bundles: real root's umoci, podman, skopeo and tar find in them what containers see."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from conftest import MakeBundle
from support.bundles import ADMINISTRATOR, Bundle
from support.committed import (
    Committing,
    Seen,
    differences,
    manifest_of,
    seen_in_chroot,
    umoci_unpack,
)
from support.containers import Runrootless
from support.oracle import in_chroot
from support.processes import eventually
from support.trees import UNREAD, Tree, Trees
from support.users import AS_ROOT

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="only root's umoci unpacks all of an image")

# What files can be, changes of those that are there, and times that can be compared.
CHANGES = r"""
set -e
mkdir -p /srv/t && cd /srv/t
echo a > a && chown 33:33 a && chmod 6755 a
echo secret > unreadable && chmod 0 unreadable
mkdir locked && echo in > locked/in && chown 1:2 locked/in && chmod 0 locked
mknod null c 1 3 && mknod disk b 259 70000 && chown 5:6 disk && chmod 640 disk
mkfifo fifo && chown 100:4294967294 fifo
ln -s a link && chown -h 7:8 link && setfattr -h -n security.foo -v x link
cp /bin/true capable && setcap cap_net_raw+ep capable
setfattr -n trusted.foo -v bar a && setfattr -n user.x -v y a
setfattr -n user.value -v 0x000102ff a
setfacl -m u:1234:rw,g:99999:r a && setfacl -d -m g:77:rx . && echo inherits > child
ln a hard && ln link hardlink && ln null hardnull
long=$(printf '%0200d' 7) && mkdir $long && echo l > $long/$long && ln -s $long/$long longlink
printf 'x' > "$(printf 'caf\303\251')" && printf 'y' > "$(printf 'latin\351')"
printf 'z' > 'a line
feed' && : > empty
chown 4294967294:4294967294 empty
mkdir sticky && chmod 3777 sticky && chown 0:50 sticky
dd if=/dev/zero of=sparse bs=1 count=0 seek=3000000 status=none
rm /etc/issue && rm -r /etc/dpkg && ln -s nowhere /etc/dpkg
rm -r /var/log/apt && echo file > /var/log/apt
rm /etc/issue.net && mkdir /etc/issue.net && echo in > /etc/issue.net/in
chmod 600 /etc/fstab && chown daemon /etc/hostname 2>/dev/null || chown daemon /etc/host.conf
setfattr -n user.only -v attribute /etc/debian_version
echo more >> /etc/profile
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/srv/t/socket")'
find /srv/t ! -type s -print0 | xargs -0 touch -h -d '2001-02-03 04:05:06.123456789 UTC'
touch -d '1969-12-31 23:59:58.5 UTC' /srv/t/child
"""

# What the trees of the tests do not have of their image, and what the host's are mounted on.
LEFT_OUT = (
    *(f"/usr/share/{name}" for name in UNREAD),
    *("/etc/hosts", "/etc/resolv.conf"),
)


@pytest.fixture
def committing(runrootless: Runrootless, trees: Trees) -> Iterator[Committing]:
    yield Committing(runrootless, trees)


@pytest.fixture
def small(committing: Committing) -> Bundle:
    """A bundle of an image of busybox."""
    return committing.busybox_bundle()


def test_umoci_unpacks_what_the_container_sees_and_real_root_would_have_made(
    bundle: MakeBundle,
    tools_tree: Tree,
    trees: Trees,
    committing: Committing,
    runrootless: Runrootless,
) -> None:
    ours = bundle(tools_tree, copy=True).add_capabilities(ADMINISTRATOR)
    committing.has_been_unpacked(ours, tools_tree.archive)
    runrootless.run(ours.script(CHANGES)).check()
    inside = read(committing.look(ours))
    layout = committing.new_directory()
    before = real_modes(ours.rootfs)
    done = runrootless("commit", ours.path, f"oci:{layout}/layout:new").check()
    assert "socket is left out: it is a socket" in done.stderr
    assert real_modes(ours.rootfs) == before

    work = committing.new_directory(for_user=False)
    root = umoci_unpack(f"{layout}/layout:new", work)
    unpacked = read(seen_in_chroot(root))
    assert differences(inside, unpacked) == []

    copy = trees.copy_all_but_usr(tools_tree.oracle, f"{work}/oracle")
    in_chroot(copy, ["sh", "-c", CHANGES]).check()
    oracle = read(seen_in_chroot(copy))
    # What the script has not set the times of was changed at another time.
    assert differences(oracle, unpacked, but=["mtime"]) == []
    times = {path: entry["mtime"] for path, entry in oracle.items() if path.startswith("/srv/t")}
    assert times == {path: unpacked[path]["mtime"] for path in times}

    manifest, config = manifest_of(f"{layout}/layout", "new")
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"]) == 2
    assert manifest["layers"][1]["size"] < 2_000_000
    for path in (f"{layout}/layout", f"{work}/unpacked", f"{work}/oracle"):
        shutil.rmtree(path)


def test_an_installation_by_apt(
    bundle: MakeBundle, committing: Committing, runrootless: Runrootless, jobs_tree: Tree
) -> None:
    ours = bundle(jobs_tree, whole=True).add_capabilities(ADMINISTRATOR)
    committing.has_been_unpacked(ours, jobs_tree.archive)
    apt = "DPKG_FORCE=unsafe-io DEBIAN_FRONTEND=noninteractive apt-get install --yes"
    runrootless.run(ours.script(f"{apt} /packages/*.deb"), timeout=300).check()
    owners = "find / -xdev -path /proc -prune -o -printf '%y %U:%G %m %T@ %s %i %n %p %l\\n'"
    inside = runrootless.run(ours.script(owners)).check().stdout
    layout = committing.new_directory()
    runrootless("commit", ours.path, f"oci:{layout}/layout:new", timeout=300).check()
    root = umoci_unpack(f"{layout}/layout:new", committing.new_directory(for_user=False))
    outside = in_chroot(root, ["sh", "-c", owners]).check().stdout
    assert listing(inside) == listing(outside)
    assert "/usr/bin/dbus-daemon" in outside
    shutil.rmtree(os.path.dirname(root))
    shutil.rmtree(f"{layout}/layout")


def read(tree: Seen) -> Seen:
    """Return a tree without what is in the image, but not in the trees of the tests."""
    return {path: entry for path, entry in tree.items() if not path.startswith(LEFT_OUT)}


def listing(output: str) -> set[tuple[str, ...]]:
    """Return what find(1) says of each file; of directories not their size and links."""
    found: set[tuple[str, ...]] = set()
    for line in output.splitlines():
        kind, owner, mode, time, size, _, links, path = line.split(" ", 7)
        name = path.split(" ")[0]
        if not name.startswith(("/dev", "/sys", "/proc", *LEFT_OUT)):
            size, links = ("", "") if kind == "d" else (size, links)
            found.add((kind, owner, mode, time, size, links, path))
    return found


def real_modes(rootfs: str) -> dict[str, tuple[int, int]]:
    """Return mode and time of all files, by real root's stat(2)."""
    found = {}
    for directory, names, files in os.walk(rootfs):
        for name in names + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            found[path] = status.st_mode, status.st_ctime_ns
    return found


def test_the_same_tree_makes_the_same_image(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    runrootless.run(small.script("echo x >/srv/new; chown 5:6 /srv/new; rm /srv/other")).check()
    layout = committing.new_directory()
    first = runrootless("commit", small.path, f"oci:{layout}/a:x").check().stdout
    again = runrootless("commit", small.path, f"oci:{layout}/b:x").check().stdout
    assert first == again != ""
    # The user's copy has other inode numbers and times of change.
    copy = f"{committing.new_directory()}/copy"
    committing.user.run(["cp", "-a", small.path, copy]).check()
    assert runrootless("commit", copy, f"oci:{layout}/c:x").check().stdout == first
    old = {"SOURCE_DATE_EPOCH": "1000000000"}
    done = runrootless("commit", "--squash", small.path, f"oci:{layout}/d:x", env=old).check()
    assert done.stdout != first
    manifest, config = manifest_of(f"{layout}/d", "x")
    assert config["created"] == "2001-09-09T01:46:40Z"
    layer = f"{layout}/d/blobs/{manifest['layers'][0]['digest'].replace(':', '/')}"
    times = subprocess.run(
        ["tar", "--utc", "--full-time", "-tvzf", layer], capture_output=True, text=True, check=True
    ).stdout
    assert "srv/new" in times
    assert {line.split()[3] for line in times.splitlines()} <= {"2001-09-09", "1970-01-01"}


def test_a_copy_of_a_bundle_is_told_of(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    """By what runs it and by what reads it, and a moved one is none."""
    script = "cd /srv; ln -s x link; chown -h 5:6 link; mknod null c 1 3"
    runrootless.run(small.add_capabilities(ADMINISTRATOR).script(script)).check()
    stat = "stat -c '%n %F %u' /srv/link /srv/null"
    directory = committing.new_directory()
    moved, copied = f"{directory}/moved", f"{directory}/copied"
    committing.user.run(["mv", small.path, moved]).check()
    committing.user.run(["cp", "-a", moved, copied]).check()
    for path, lines in ((moved, 0), (copied, 1)):
        store = f"{path}/.rootfs.ownership is a copy: owners of symlinks"
        again = Bundle(path, f"{path}/rootfs")
        done = runrootless.run(again.script(stat)).check()
        assert done.stderr.count(store) == done.stderr.count("\n") == lines
        assert done.stdout.splitlines() == [
            f"/srv/link symbolic link {0 if lines else 5}",
            "/srv/null character special file 0",
        ]
        for command in (
            ["commit", path, f"oci:{directory}/{lines}"],
            ["export", path, f"{directory}/{lines}.tar"],
        ):
            done = runrootless(*command).check()
            assert done.stderr.count(store) == done.stderr.count("\n") == lines
    # Its own records count, whatever else it has.
    script = "chown -h 7 /srv/link"
    assert "is a copy" in runrootless.run(again.script(f"{script}; {stat}")).check().stderr
    assert "/srv/link symbolic link 7" in runrootless.run(again.script(stat)).check().stdout


def test_nothing_has_changed(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    layout = committing.new_directory()
    flags = ["--config", 'entrypoint=["/bin/cat"]', "--config", "cmd=", "--config", "env=A=b c"]
    flags += ["--config", "label=one=two=3", "--config", "port=80/tcp", "--config", "volume=/data"]
    flags += ["--config", "user=33:34", "--config", "workingdir=/srv", "--config", "stopsignal=9"]
    flags += ["--author", "Nobody <n@example.org>", "--message", "as it was"]
    runrootless("commit", *flags, small.path, f"oci:{layout}/a").check()
    manifest, config = manifest_of(f"{layout}/a", "latest")
    assert len(manifest["layers"]) == 1
    assert config["config"] == {
        "Entrypoint": ["/bin/cat"],
        "Env": ["PATH=/usr/bin:/bin", "A=b c"],
        "Labels": {"one": "two=3"},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "User": "33:34",
        "WorkingDir": "/srv",
        "StopSignal": "9",
    }
    assert config["author"] == "Nobody <n@example.org>"
    assert config["history"][-1] == {
        "author": "Nobody <n@example.org>",
        "comment": "as it was",
        "created": "2020-01-01T00:00:00Z",
        "created_by": "runrootless commit",
        "empty_layer": True,
    }


@pytest.mark.parametrize("flags", [[], ["--squash"]])
def test_podman_and_skopeo_read_archives(
    small: Bundle, committing: Committing, runrootless: Runrootless, flags: list[str]
) -> None:
    script = "cd /srv; echo x >new; chown 5:6 new; rm other; mkfifo f; ln new hard; chmod 0 mine"
    runrootless.run(small.script(script)).check()
    directory = committing.new_directory()
    archive = f"{directory}/image.tar"
    runrootless("commit", *flags, small.path, f"docker-archive:{archive}:test/it:v1").check()
    read = f"docker-archive:{archive}"
    subprocess.run(["skopeo", "inspect", read], check=True, capture_output=True)
    subprocess.run(["skopeo", "copy", "-q", read, f"oci:{directory}/copied:x"], check=True)
    root = umoci_unpack(f"{directory}/copied:x", committing.new_directory(for_user=False))
    storage = committing.new_directory(for_user=False)
    podman = ["podman", "--root", f"{storage}/root", "--runroot", f"{storage}/run"]
    podman += ["--storage-driver", "vfs"]

    def run(*words: str) -> str:
        done = subprocess.run([*podman, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    run("load", "-i", archive)
    mounted = run("image", "mount", "test/it:v1")
    for place in (root, mounted):
        stat = ["stat", "-c", "%n %F %u:%g %a %h", "mine", "new", "hard", "f"]
        done = subprocess.run(stat, cwd=f"{place}/srv", capture_output=True, text=True)
        assert done.stdout.splitlines() == [
            "mine regular file 12:34 0 1",
            "new regular file 5:6 644 2",
            "hard regular file 5:6 644 2",
            "f fifo 0:0 644 1",
        ]
        assert not os.path.exists(f"{place}/srv/other")
    run("image", "umount", "test/it:v1")
    run("rmi", "test/it:v1")


def test_a_layer_that_is_gone_from_the_cache(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    layout = f"{committing.new_directory()}/layout"
    committing.user.run(["rm", "-r", f"{committing.cache}/runrootless"]).check()
    done = runrootless("commit", small.path, f"oci:{layout}").check(1)
    assert len(done.stderr.splitlines()) == 1
    assert "--squash writes the whole tree as one layer" in done.stderr
    assert not os.path.exists(layout)
    runrootless("commit", "--squash", small.path, f"oci:{layout}").check()
    assert len(manifest_of(layout, "latest")[0]["layers"]) == 1


def test_a_layer_that_is_damaged(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    directory = committing.new_directory()
    with open(f"{os.path.dirname(small.path)}/layer.tar", "r+b") as file:
        file.seek(600)
        file.write(b"damage")
    for image in (f"oci:{directory}/layout", f"docker-archive:{directory}/image.tar"):
        done = runrootless("commit", small.path, image).check(1)
        assert "is damaged" in done.stderr
    assert not os.path.exists(f"{directory}/image.tar")
    assert not os.path.exists(f"{directory}/layout/index.json")


def test_other_images_of_a_layout_stay_and_the_tag_moves(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    layout = f"{committing.new_directory()}/layout"
    first = runrootless("commit", small.path, f"oci:{layout}:one").check().stdout
    runrootless.run(small.script("echo x >/srv/new")).check()
    second = runrootless("commit", small.path, f"oci:{layout}:two").check().stdout
    assert first != second
    runrootless("commit", small.path, f"oci:{layout}:one").check()
    with open(f"{layout}/index.json") as file:
        index = json.load(file)
    assert [entry["digest"] for entry in index["manifests"]] == [second.strip()] * 2
    umoci_unpack(f"{layout}:one", committing.new_directory(for_user=False))


def test_ten_at_once_into_one_layout(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    layout = f"{committing.new_directory()}/layout"
    running = [
        runrootless.user.start(runrootless.command("commit", small.path, f"oci:{layout}:t{number}"))
        for number in range(10)
    ]
    for process in running:
        assert process.wait(120) == 0
    with open(f"{layout}/index.json") as file:
        assert len(json.load(file)["manifests"]) == 10


def test_an_interrupt_leaves_nothing(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    # Enough to be busy with when the signal comes.
    script = "i=0; while [ $i -lt 40 ]; do cp /bin/busybox /srv/c$i; i=$((i+1)); done"
    runrootless.run(small.script(script)).check()
    directory = committing.new_directory()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        for command in (
            ["commit", "--squash", small.path, f"oci:{directory}/layout"],
            ["commit", "--squash", small.path, f"docker-archive:{directory}/image.tar"],
            ["export", small.path, f"{directory}/root.tar.gz"],
        ):
            process = runrootless.user.start(runrootless.command(*command))
            eventually(lambda: len(runrootless.user.account.processes()) > 1, "its child")
            os.kill(process.pid, number)
            assert process.wait(60) != 0
            runrootless.assert_nothing_left()
            assert os.listdir(directory) == []


def test_a_full_disk_leaves_nothing(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    directory = committing.new_directory()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k,mode=1777", "tmpfs", directory]
    subprocess.run(mount, check=True)
    try:
        for command in (
            ["commit", "--squash", small.path, f"oci:{directory}/layout"],
            ["commit", small.path, f"docker-archive:{directory}/image.tar"],
            ["export", small.path, f"{directory}/root.tar"],
        ):
            done = runrootless(*command).check(1)
            assert "No space left on device" in done.stderr, done
            assert len(done.stderr.splitlines()) == 1, done
            left = [name for name in os.listdir(directory) if name != "layout"]
            assert left == []
            assert not os.path.exists(f"{directory}/layout/index.json")
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def test_while_the_container_runs(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    """Files grow, go and come meanwhile: the archive is whole, and what is still is right."""
    script = (
        "echo still >/srv/still; chown 9:9 /srv/still; while :; do "
        "echo $$ >>/srv/grows; cat /srv/grows >/srv/n$((i % 7)); rm -f /srv/n$(((i + 3) % 7)); "
        "mkdir -p /srv/d/e; echo x >/srv/d/e/f; rm -r /srv/d; i=$((i+1)); "
        "[ ! -e /srv/stop ] || exit 0; done"
    )
    process = runrootless.user.start(
        runrootless.command("run", "--bundle", small.path, runrootless.new_id())
        if small.script(script)
        else []
    )
    eventually(lambda: os.path.exists(f"{small.rootfs}/srv/n1"), "the container's work")
    directory = committing.new_directory()
    for number in range(5):
        done = runrootless("export", small.path, f"{directory}/{number}.tar")
        if done.returncode:
            assert "has become shorter while it was read" in done.stderr
            continue
        listed = subprocess.run(
            ["tar", "--numeric-owner", "-tvf", f"{directory}/{number}.tar"],
            capture_output=True,
            text=True,
        )
        assert listed.returncode == 0, listed.stderr
        assert " 9/9 " in next(line for line in listed.stdout.splitlines() if "/still" in line)
    for number in range(3):
        done = runrootless("commit", small.path, f"oci:{directory}/layout:{number}")
        if done.returncode:
            assert "has become shorter while it was read" in done.stderr
            continue
        root = umoci_unpack(
            f"{directory}/layout:{number}", committing.new_directory(for_user=False)
        )
        assert os.stat(f"{root}/srv/still").st_uid == 9
    with open(f"{small.rootfs}/srv/stop", "w"):
        pass
    process.communicate(timeout=60)


@pytest.mark.parametrize("end", ["", ".gz", ".xz", ".zst"])
def test_tar_unpacks_an_export_as_the_container_sees_it(
    small: Bundle, committing: Committing, runrootless: Runrootless, end: str
) -> None:
    script = (
        "cd /srv; echo x >a; chown 5:6 a; chmod 4711 a; mknod n c 1 5; mkfifo f; ln -s a l; ln a h"
    )
    runrootless.run(small.add_capabilities(ADMINISTRATOR).script(script)).check()
    stat = "cd /srv && stat -c '%n %F %u:%g %a %h %t:%T %Y' a n f h other"
    inside = runrootless.run(small.script(stat)).check().stdout
    directory = committing.new_directory(for_user=False)
    target = f"{committing.new_directory()}/root.tar{end}"
    runrootless("export", small.path, target).check()
    subprocess.run(["tar", "-C", directory, "-xpf", target], check=True)
    outside = in_chroot(directory, ["/bin/sh", "-c", stat]).check().stdout
    assert inside == outside
    assert "4711" in outside and "5:6" in outside


# Offsets of data of 1600 bytes, and the size, of files with holes.
SPARSE = {
    "plain": ([0], 1600),
    "small": ([0], 2100),
    "hole": ([], 3 << 20),
    "first": ([5 << 20], (5 << 20) + 1600),
    "last": ([0], 9 << 20),
    "many": ([part << 20 for part in range(0, 60, 3)], (60 << 20) + 1),
    "latin\udce9": ([1 << 20], 3 << 20),
    "long" * 40: ([1 << 20], 3 << 20),
    "huge": ([1 << 20, 1 << 40], (1 << 40) + 5000),
}


def test_holes_stay_in_a_tarball(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    """For tar(1), Python's tarfile, and `runrootless bundle`; without a terabyte being read."""
    place = f"{small.rootfs}/srv/holes"
    os.mkdir(place)
    for name, (parts, size) in SPARSE.items():
        with open(f"{place}/{name}", "wb") as file:
            for part in parts:
                file.seek(part)
                file.write(b"%016d" % part * 100)
            file.truncate(size)
    committing.user.give(place)
    tarball = f"{committing.new_directory()}/root.tar"
    runrootless("export", small.path, tarball).check()
    assert os.stat(tarball).st_size < 5 << 20
    by_tar, by_python = (committing.new_directory(for_user=False) for _ in range(2))
    subprocess.run(["tar", "-C", by_tar, "-xpf", tarball], check=True)
    with tarfile.open(tarball, errors="surrogateescape") as read:
        read.extractall(by_python)
    ours = f"{committing.new_directory()}/again"
    runrootless("bundle", "--quiet", tarball, ours).check()
    for root in (by_tar, by_python, f"{ours}/rootfs"):
        assert sorted(os.listdir(f"{root}/srv/holes")) == sorted(SPARSE)
        for name, (parts, size) in SPARSE.items():
            with open(f"{root}/srv/holes/{name}", "rb") as file:
                status = os.fstat(file.fileno())
                assert status.st_size == size
                assert status.st_blocks * 512 <= 8192 * (len(parts) + 1), (root, name)
                for part in parts:
                    file.seek(part)
                    data = file.read(1601)
                    assert data == b"%016d" % part * 100 + b"\0" * (len(data) - 1600)
                if name != "huge":
                    file.seek(0)
                    assert len(file.read().replace(b"\0", b"")) == 1600 * len(parts)


def test_holes_are_zeros_in_a_layer(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    """layer.md: "Sparse files SHOULD NOT be used". Where there are many a line says so."""
    with open(f"{small.rootfs}/srv/large", "wb") as file:
        file.write(b"x" * 5000)
        file.seek((1 << 28) + 12345)
        file.write(b"y" * 5000)
    committing.user.give(file.name)
    layout = f"{committing.new_directory()}/layout"
    done = runrootless("commit", small.path, f"oci:{layout}:x").check()
    said = "srv/large is written with 256 MiB of zeros: layers have no holes"
    assert done.stderr == f"runrootless: {said}\n"
    manifest, _ = manifest_of(layout, "x")
    layer = f"{layout}/blobs/{manifest['layers'][-1]['digest'].replace(':', '/')}"
    with tarfile.open(layer, "r|gz") as read:
        member = next(one for one in read if one.name == "srv/large")
        assert member.size == os.stat(file.name).st_size and not member.issparse()
        content = read.extractfile(member)
        assert content is not None
        found = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    with open(file.name, "rb") as written:
        assert found == hashlib.file_digest(written, "sha256").hexdigest()


def test_export_to_the_standard_output(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    user = committing.user
    script = 'exec "$1" export "$2" - | tar -tf - >"$3"'
    names = f"{committing.new_directory()}/names"
    user.run(["bash", "-c", script, "-", runrootless.program, small.path, names]).check()
    with open(names) as file:
        assert "srv/mine" in file.read().split("\n")


def test_umoci_unpacks_for_us_and_packs_what_we_have_changed(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    runrootless.run(small.script("chown 1000:1001 /srv/mine; mkdir /srv/d; chown 7 /srv/d")).check()
    directory = committing.new_directory()
    user = committing.user
    runrootless("commit", small.path, f"oci:{directory}/layout:a").check()
    image = f"{directory}/layout:a"
    user.run(["umoci", "unpack", "--rootless", "--image", image, f"{directory}/b"]).check()
    # Of another process, which umoci has not seen.
    os.unlink(f"{directory}/b/config.json")
    theirs = runrootless.bundle_at(f"{directory}/b", f"{directory}/b/rootfs")
    stat = "stat -c '%n %u:%g' /srv/mine /srv/other /srv/d"
    done = runrootless.run(theirs.script(f"{stat}; chown 44:45 /srv/other /srv/d"))
    assert done.check().stdout.splitlines() == [
        "/srv/mine 1000:1001",
        "/srv/other 0:0",
        "/srv/d 7:0",
    ]
    user.run(["umoci", "repack", "--image", f"{directory}/layout:c", f"{directory}/b"]).check()
    root = umoci_unpack(f"{directory}/layout:c", committing.new_directory(for_user=False))
    found = {name: os.stat(f"{root}/srv/{name}") for name in ("mine", "other", "d")}
    assert {name: (one.st_uid, one.st_gid) for name, one in found.items()} == {
        "mine": (1000, 1001),
        "other": (44, 45),
        "d": (44, 45),
    }


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["commit"], "commit takes BUNDLE IMAGE"),
        (["commit", "BUNDLE", "oci"], "is no place for an image"),
        (["commit", "BUNDLE", "docker://no host/x"], "is no name of an image"),
        (["commit", "BUNDLE", "oci:PLACE:"], "'' is no tag"),
        (["commit", "BUNDLE", "oci:PLACE:ü"], "'ü' is no tag"),
        (["commit", "BUNDLE", "oci:/proc/nowhere/x:a"], "/proc/nowhere/x: "),
        (["commit", "BUNDLE", "docker-archive:/nowhere/x"], "/nowhere/x: No such file"),
        (["commit", "BUNDLE", "docker-archive:BUNDLE"], "is a directory"),
        (["commit", "/nowhere", "oci:PLACE"], "there is no bundle /nowhere"),
        (["commit", "--config", "cmd", "BUNDLE", "oci:PLACE"], "is not KEY=VALUE"),
        (["commit", "--config", "evn=A=b", "BUNDLE", "oci:PLACE"], "did you mean env?"),
        (["commit", "--config", "cmd=[1]", "BUNDLE", "oci:PLACE"], "no list of strings"),
        (["commit", "--config", "workingdir=x", "BUNDLE", "oci:PLACE"], "to be absolute"),
        (["commit", "BUNDLE", "oci:BUNDLE"], "is no OCI image layout, and not empty"),
        (["export", "BUNDLE"], "export takes BUNDLE"),
        (["export", "BUNDLE", "/nowhere/x.tar"], "/nowhere/x.tar: No such file or directory"),
        (["export", "BUNDLE", "BUNDLE"], "is a directory"),
        (["export", "BUNDLE", "/nowhere/x.tar.foo"], "it is not known how to write .foo"),
        (["export", "BUNDLE", "/nowhere/x.tgz"], "it is not known how to write .tgz"),
    ],
)
def test_mistakes_are_said_in_one_line(
    small: Bundle, committing: Committing, runrootless: Runrootless, words: list[str], reason: str
) -> None:
    place = f"{committing.new_directory()}/layout"
    words = [word.replace("BUNDLE", small.path).replace("PLACE", place) for word in words]
    done = runrootless(*words).check(1)
    assert reason in done.stderr and len(done.stderr.splitlines()) == 1
    assert not os.path.exists(place)


def test_without_a_snapshot(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    layout = f"{committing.new_directory()}/layout"
    committing.user.run(["truncate", "-s", "-5", f"{small.path}/snapshot"]).check()
    done = runrootless("commit", small.path, f"oci:{layout}").check(1)
    assert "is damaged: --squash goes without it" in done.stderr
    committing.user.run(["rm", f"{small.path}/snapshot"]).check()
    done = runrootless("commit", small.path, f"oci:{layout}").check(1)
    assert "--squash writes the whole tree as one layer" in done.stderr
    assert not os.path.exists(layout)


def test_owners_that_containers_storage_keeps(
    small: Bundle, committing: Committing, runrootless: Runrootless
) -> None:
    """``force_mask``: all files have one mode, and what they are is in an attribute."""
    for name, value in (
        ("", b"0:0:0755:dir"),
        ("srv/mine", b"1000:1001:4711:file"),
        ("srv/other", b"0:6:0660:block-8-1"),
    ):
        path = os.path.join(small.rootfs, name)
        os.chmod(path, 0o755)
        os.setxattr(path, "user.containers.override_stat", value)
        if value.startswith(b"1000"):
            os.removexattr(path, "user.rootlesscontainers")
    stat = "stat -c '%n %F %u:%g %a %t:%T' /srv/mine /srv/other"
    done = runrootless.run(small.script(f"{stat}; chown 3:3 /srv/mine")).check()
    assert done.stdout.splitlines() == [
        "/srv/mine regular file 1000:1001 4711 0:0",
        "/srv/other block special file 0:6 660 8:1",
    ]
    assert "3:3" in runrootless.run(small.script(stat)).check().stdout
    layout = f"{committing.new_directory()}/layout"
    runrootless("commit", small.path, f"oci:{layout}").check()
    root = umoci_unpack(f"{layout}:latest", committing.new_directory(for_user=False))
    status = os.stat(f"{root}/srv/mine")
    assert (status.st_uid, status.st_gid) == (3, 3)
    assert os.stat(f"{root}/srv/other").st_rdev == os.makedev(8, 1)
    assert os.listxattr(f"{root}/srv/mine") == []
