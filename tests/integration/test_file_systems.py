"""Owners and devices that cannot be kept with the file, or must outlast what made them."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import MakeBundle
from support.agents import the_supervisor, the_worker
from support.bundles import Bundle, Config
from support.containers import Runrootless
from support.mounts import unmount
from support.processes import eventually
from support.trees import Tree, Trees
from support.users import AS_ROOT

MAKE = """cd /srv; touch f; mkdir d; ln -s f l; mkfifo p; mknod c c 4 64; mknod b b 8 1
chown -h 5:6 f d l p; chown 7:8 c b; chmod 640 c b"""
SHOW = "cd /srv; stat -c '%n %F %u:%g %t:%T %a' *"
MADE = """b block special file 7:8 8:1 640
c character special file 7:8 4:40 640
d directory 5:6 0:0 755
f regular empty file 5:6 0:0 644
l symbolic link 5:6 0:0 777
p fifo 5:6 0:0 644
"""
LABEL = "cd /srv; for f in *; do setfattr -h -n security.selinux -v made-as-$f $f; done"
LABELS = "cd /srv; getfattr -hdm security *"
LABELED = "".join(f'# file: {name}\nsecurity.selinux="made-as-{name}"\n\n' for name in "bcdflp")

MakeVolume = Callable[..., str]


@pytest.fixture
def volume(trees: Trees, runrootless: Runrootless) -> Iterator[MakeVolume]:
    """Mount file systems of the host's root, and give them to the user."""
    if not AS_ROOT:
        pytest.skip("only root mounts file systems: run the tests as root")
    mounted = []

    def make(*options: str) -> str:
        path = trees.new_directory("volume", for_user=True)
        subprocess.run(["mount", *options, path], check=True)
        mounted.append(path)
        runrootless.user.give(path)
        return path

    yield make
    for path in mounted:
        unmount(path)


def _bind(source: str, *options: str) -> Callable[[dict[str, Any]], None]:
    mount = {"destination": "/srv", "type": "bind", "source": source, "options": ["bind", *options]}
    return lambda config: config["mounts"].append(mount)


def _with_own_directory(bundle: MakeBundle, tree: Tree, trees: Trees) -> Bundle:
    """Make a bundle with a small root file system of its own, in a directory of the user's."""
    ours = bundle(tree)
    rootfs = f"{ours.path}/rootfs"
    os.mkdir(rootfs)
    trees.user.give(rootfs)
    for name in ("srv", "dev", "proc", "sys"):
        os.mkdir(f"{rootfs}/{name}")
        trees.user.give(f"{rootfs}/{name}")
    for name in ("bin", "sbin", "lib", "lib64"):
        os.symlink(f"usr/{name}", f"{rootfs}/{name}")
    usr = {
        "destination": "/usr",
        "type": "bind",
        "source": f"{ours.rootfs}/usr",
        "options": ["bind", "ro"],
    }

    def change(config: Config) -> None:
        config["root"]["path"] = "rootfs"
        config["mounts"].append(usr)

    ours.rootfs = rootfs
    return ours.change(change)


def test_a_later_container_sees_the_same(
    bundle: MakeBundle, tools_tree: Tree, runrootless: Runrootless, trees: Trees
) -> None:
    ours = _with_own_directory(bundle, tools_tree, trees)
    runrootless.run(ours.script(MAKE)).check()
    assert runrootless.run(ours.script(SHOW)).check().stdout == MADE
    assert os.path.getsize(f"{ours.path}/.rootfs.ownership") > 0
    runrootless.run(ours.script(LABEL)).check()
    assert runrootless.run(ours.script(LABELS)).check().stdout == LABELED
    assert os.path.getsize(f"{ours.path}/.rootfs.attributes") > 0
    assert runrootless.run(ours.script(SHOW)).check().stdout == MADE
    # A second root file system in the place of the first one has none of its records.
    shutil.rmtree(f"{ours.rootfs}/srv")
    os.mkdir(f"{ours.rootfs}/srv")
    runrootless.user.give(f"{ours.rootfs}/srv")
    for number in range(3):
        os.symlink("y", f"{ours.rootfs}/srv/{number}")
        runrootless.user.give(f"{ours.rootfs}/srv/{number}")
    script = f"stat -c %u:%g /srv/*; {LABELS}"
    assert runrootless.run(ours.script(script)).check().stdout == "0:0\n" * 3


def test_two_containers_on_one_rootfs(
    bundle: MakeBundle, tools_tree: Tree, runrootless: Runrootless, trees: Trees
) -> None:
    ours = _with_own_directory(bundle, tools_tree, trees)
    ours.script("while [ ! -e /srv/stop ]; do sleep 0.05; done")
    names = [runrootless.new_id() for _ in range(2)]
    for name in names:
        runrootless("run", "--detach", "--bundle", ours.path, name).check()

    def run(which: int, script: str) -> str:
        return runrootless("exec", names[which], "sh", "-c", script).check().stdout

    run(0, MAKE)
    assert run(1, SHOW) == MADE
    run(1, LABEL)
    assert run(0, LABELS) == LABELED
    # In turns, also where the inode numbers of the one are used again by the other.
    for turn in range(6):
        run(turn % 2, f"cd /srv; rm -f l c; ln -s x c; mknod l c 1 {turn}; chown -h {turn} l c")
        assert run(1 - turn % 2, f"{LABELS} | grep -c made-as") == "4\n"
        run(turn % 2, LABEL)
        assert run(1 - turn % 2, LABELS) == LABELED
        assert run(1 - turn % 2, "cd /srv; stat -c '%F %u %T' c l").splitlines() == [
            f"symbolic link {turn} 0",
            f"character special file {turn} {turn}",
        ]
    run(0, "touch /srv/stop")
    for name in names:
        runrootless("delete", "--force", name).check()


def test_what_a_killed_agent_recorded_is_there(
    bundle: MakeBundle, tools_tree: Tree, runrootless: Runrootless, trees: Trees
) -> None:
    name = runrootless.new_id()
    ours = _with_own_directory(bundle, tools_tree, trees).script("sleep 100")
    runrootless("run", "--detach", "--bundle", ours.path, name).check()
    runrootless("exec", name, "sh", "-c", f"{MAKE}; {LABEL}").check()
    account = runrootless.user.account
    for pid in (the_supervisor(account), the_worker(account)):
        os.kill(pid, signal.SIGKILL)
    runrootless("delete", "--force", name).check()
    assert runrootless.run(ours.script(f"{SHOW}; {LABELS}")).check().stdout == MADE + LABELED


def test_where_nothing_can_be_kept_beside_the_rootfs(
    bundle: MakeBundle, tools_tree: Tree, runrootless: Runrootless, trees: Trees
) -> None:
    """The directory that holds it is somebody else's: devices are kept with the file."""
    path = trees.new_directory("volume", for_user=True)
    ours = bundle(tools_tree).change(_bind(path))
    script = f"{MAKE}; {LABEL}; {SHOW}; {LABELS}"
    assert runrootless.run(ours.script(script)).check().stdout == MADE + LABELED
    later = runrootless.run(ours.script(SHOW)).check().stdout
    assert [line for line in later.splitlines() if line[0] in "bc"] == MADE.splitlines()[:2]


def test_without_attributes(
    bundle: MakeBundle, tools_tree: Tree, runrootless: Runrootless, volume: MakeVolume
) -> None:
    """A ramfs: no user attributes, no times of birth, and no number of a disk."""
    ours = bundle(tools_tree).change(_bind(volume("-t", "ramfs", "none")))
    script = f"{MAKE}; {SHOW}; chown 9 f; stat -c %u f; rm f; touch f; stat -c %u f"
    assert runrootless.run(ours.script(script)).check().stdout == MADE + "9\n0\n"
    # The file system has no attributes of any kind: it is as to the real root.
    done = runrootless.run(ours.script(LABEL))
    assert done.stderr.count("Operation not supported") == len("bcdflp")


def test_without_whiteouts(
    bundle: MakeBundle, tools_tree: Tree, runrootless: Runrootless, volume: MakeVolume, trees: Trees
) -> None:
    """An overlay makes none: to it they are names that have been removed."""
    parts = [trees.new_directory("overlay", for_user=True) for _ in range(3)]
    options = "lowerdir={},upperdir={},workdir={}".format(*parts)
    path = volume("-t", "overlay", "-o", options, "none")
    ours = bundle(tools_tree).change(_bind(path))
    script = f"{MAKE}; {LABEL}; {SHOW}; {LABELS}"
    assert runrootless.run(ours.script(script)).check().stdout == MADE + LABELED
    assert runrootless.run(ours.script(f"{SHOW}; find . -type f | sort")).check().stdout == (
        # What can be kept with the file is.
        "".join(line for line in MADE.splitlines(True) if line[0] not in "lp")
        + "l symbolic link 0:0 0:0 777\np fifo 0:0 0:0 644\n./b\n./c\n./f\n"
    )


def test_read_only_and_immutable_files(
    bundle: MakeBundle, tools_tree: Tree, runrootless: Runrootless, trees: Trees
) -> None:
    if not AS_ROOT:
        pytest.skip("only root makes files immutable: run the tests as root")
    path = trees.new_directory("volume", for_user=True)
    runrootless.run(
        bundle(tools_tree)
        .change(_bind(path))
        .script("cd /srv; touch f; chown 5:6 f; ln f g; ln -s f l; mkfifo p; chown 5:6 p")
    )
    errors = "chown 9 f; chown -h 9 f; chown 5:6 f; chmod 4755 f; mknod c c 1 3"
    errors += "; chown -h 9 l; chown -h 0:0 l; chown 9 p; chown 5:6 p; setfattr -n trusted.a -v 1 f"
    errors += "; setfattr -h -n trusted.a -v 1 l; setfattr -h -x trusted.b l"
    read_only = runrootless.run(
        bundle(tools_tree).change(_bind(path, "ro")).script(f"cd /srv; {errors}")
    )
    lines = read_only.stderr.splitlines()
    assert len(lines) == 12
    assert all(line.endswith("Read-only file system") for line in lines)
    subprocess.run(["chattr", "+i", f"{path}/f"], check=True)
    try:
        immutable = runrootless.run(
            bundle(tools_tree)
            .change(_bind(path))
            .script("cd /srv; chown 9 f; chown 9 g; chown 5:6 f; stat -c %u:%g f g")
        )
    finally:
        subprocess.run(["chattr", "-i", f"{path}/f"], check=True)
    assert immutable.stdout == "5:6\n5:6\n"
    assert immutable.stderr.count("Operation not permitted") == 3
    shutil.rmtree(path)


def test_labels_of_the_host_are_none_inside(
    bundle: MakeBundle, runrootless: Runrootless, tools_tree: Tree, trees: Trees
) -> None:
    """On a host with SELinux every file has one, which only its root can set."""
    if not AS_ROOT:
        pytest.skip("only root sets security attributes: run the tests as root")
    path = trees.new_directory("volume", for_user=True)
    ours = bundle(tools_tree).change(_bind(path))
    runrootless.run(
        ours.script("cd /srv; touch f g; ln -s f l; setfattr -n trusted.t -v 1 g")
    ).check()
    for name in ("f", "g", "l"):
        os.setxattr(f"{path}/{name}", "security.selinux", b"host", follow_symlinks=False)
    show = "getfattr -hd -m - f g l; getfattr -n security.selinux f; "
    label = "for n in f g l; do setfattr -hn security.selinux -v inside $n; done; cp -a g copy; "
    show_after = "getfattr -hd -m - f l copy"
    result = runrootless.run(ours.script(f"cd /srv; {show}{label}{show_after}"))
    inside = 'security.selinux="inside"\n'
    assert result.stdout == (
        '# file: g\ntrusted.t="1"\n\n'
        f"# file: f\n{inside}\n# file: l\n{inside}\n"
        f'# file: copy\n{inside}trusted.t="1"\n\n'
    )
    assert result.stderr == "f: security.selinux: No such attribute\n"
    assert os.getxattr(f"{path}/f", "security.selinux") == b"host"
    shutil.rmtree(path)


def test_devices_that_the_caller_may_not_have(
    bundle: MakeBundle, runrootless: Runrootless, tools_tree: Tree, trees: Trees
) -> None:
    ours = _with_own_directory(bundle, tools_tree, trees)
    for kind, option in (("char", "c"), ("block", "b")):
        there = sorted(os.listdir(f"/sys/dev/{kind}"))[0]
        script = f"""cd /srv; mknod there {option} {there.replace(":", " ")}
            mknod absent {option} 240 77; tee there </dev/null; tee absent </dev/null
            stat -c '%n %t:%T' there absent; rm there absent"""
        result = runrootless.run(ours.script(script))
        major, minor = (int(number) for number in there.split(":"))
        assert result.stdout == f"there {major:x}:{minor:x}\nabsent f0:4d\n"
        first, second = result.stderr.splitlines()
        assert "there" in first and "Operation not permitted" in first
        assert "absent" in second and "No such device or address" in second


def test_mounts_in_a_new_root_are_the_containers(
    bundle: MakeBundle, runrootless: Runrootless, trees: Trees
) -> None:
    """They are there while a process has that root, and gone with the container."""
    path = trees.new_directory("volume", for_user=True)
    ours = bundle().change(_bind(path))
    ours.script(
        "mkdir -p /srv/dev && mknod /srv/dev/null c 1 3 && exec perl -e"
        ' \'chroot "/srv"; open my $f, "<", "/dev/null" or die $!; sleep 100\''
    )
    name = runrootless.new_id()
    runrootless("run", "--detach", "--bundle", ours.path, name).check()
    mounts = "grep -c ' /srv/dev/null' /proc/self/mounts"
    eventually(
        lambda: runrootless("exec", name, "sh", "-c", mounts).stdout == "1\n", "the mount of null"
    )
    runrootless("delete", "--force", name).check()
    assert os.lstat(f"{path}/dev/null").st_rdev == 0
    shutil.rmtree(path)


FILE_OF_THE_KERNEL = """
import os
with open("/proc/filesystems") as file:
    for owner in (0, 5, 0):
        try:
            os.fchown(file.fileno(), owner, owner)
        except PermissionError:
            print("EPERM", end=" ")
        for _ in range(2):
            print(os.fstat(file.fileno()).st_uid, os.stat(file.name).st_gid, end=" ")
"""


def test_a_file_of_procfs_that_is_no_process_s(
    bundle: MakeBundle, tools_tree: Tree, runrootless: Runrootless
) -> None:
    ours = bundle(tools_tree).set(["python3", "-I", "-c", FILE_OF_THE_KERNEL])
    # It is the host's root's.
    assert runrootless.run(ours).check().stdout.strip() == "0 0 0 0 EPERM 0 0 0 0 0 0 0 0"
