"""``linux.devices``: nodes and fifos with the owners and modes that the bundle says."""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import MakeBundle, both_runtimes
from support.bundles import Bundle, Config
from support.containers import Runrootless
from support.trees import Tree, Trees
from support.users import AS_ROOT

Device = dict[str, Any]

DEVICES: list[Device] = [
    {"path": "/dev/plain", "type": "c", "major": 10, "minor": 229},
    {"path": "/dev/owned", "type": "c", "major": 4, "minor": 1, "uid": 33, "gid": 44},
    {"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 3, "fileMode": 0o600},
    {"path": "/dev/block", "type": "b", "major": 7, "minor": 300, "fileMode": 0o640, "gid": 6},
    {"path": "/dev/large", "type": "b", "major": 4095, "minor": 1048575, "uid": 4294967294},
    {"path": "/dev/fifo", "type": "p", "fileMode": 0o622, "uid": 1000, "gid": 1001},
    {"path": "/dev/kind-in-mode", "type": "c", "major": 5, "minor": 6, "fileMode": 0o20666},
    {"path": "/dev/bits", "type": "c", "major": 5, "minor": 7, "fileMode": 0o6755, "uid": 1},
    {"path": "/dev/group-bit", "type": "p", "fileMode": 0o2604, "uid": 1, "gid": 2},
    {"path": "/dev/none", "type": "c", "major": 5, "minor": 8, "fileMode": 0},
    {"path": "/dev/whiteout", "type": "c", "uid": 5},
    {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "uid": 7, "fileMode": 0o644},
    {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5},
    # The host's is another one.
    {"path": "/dev/full", "type": "c", "major": 1, "minor": 77, "gid": 9},
    {"path": "/dev/plain", "type": "c", "major": 1, "minor": 2},
    {"path": "/srv/new/sub/node", "type": "c", "major": 10, "minor": 200, "uid": 12},
    {"path": "/srv/fifo", "type": "p", "gid": 12},
    {"path": "/etc/passwd", "type": "b", "major": 8, "minor": 1, "uid": 3},
    {"path": "/etc/../root-node", "type": "b", "major": 8, "minor": 2},
    {"path": "/../../above", "type": "b", "major": 8, "minor": 3},
    {"path": "/lib/by-link", "type": "p"},
    {"path": "/missing/../beside-missing", "type": "b", "major": 8, "minor": 4},
    {"path": "/srv/./there/../not-there/../../srv/lexical/../dots", "type": "p", "gid": 3},
    {"path": "/mnt/sub/node", "type": "c", "major": 10, "minor": 201, "gid": 13},
    {"path": "/dev/ptmx", "type": "c", "major": 1, "minor": 3},
]
# crun follows no symlink to what is not there. Each is in /srv, with where it leads to.
LINKS = {
    "absolute": "/of-links/absolute/deeper",
    "relative": "../of-links/./relative",
    "above": "/../../../of-links/above",
    "chain": "absolute/chain",
    "end": "/of-links/end",
    "back": "gone/../../of-links/back",
    "there": "/etc",
}
BY_LINKS: list[Device] = [
    {"path": f"/srv/{name}/node", "type": "c", "major": 10, "minor": 201 + number, "uid": number}
    for number, name in enumerate(LINKS)
    if name != "end"
] + [
    {"path": "/srv/end", "type": "p", "gid": 14},
    {"path": "/srv/absolute/../up", "type": "p", "gid": 15},
]
# Those that crun 1.8.1 cannot make as real root: no directories are made below /dev, and a path
# without a slash ends it.
RELATIVE: list[Device] = [
    {"path": "/dev/new/sub/node", "type": "c", "major": 10, "minor": 200, "gid": 12},
    {"path": "relative/node", "type": "b", "major": 8, "minor": 3, "uid": 12},
    {"path": "", "type": "c", "major": 8, "minor": 3},
]
PLACES = (
    "/dev/* /srv /srv/* /srv/new/* /srv/new/sub/* /etc/passwd /root-node /above /lib/by-link "
    "/dev/new /dev/new/sub /dev/new/sub/node /relative /relative/node "
    "/missing /beside-missing /srv/lexical /mnt /mnt/sub /mnt/sub/node "
    "/of-links /of-links/* /of-links/*/* /of-links/*/*/* /of-links/*/*/*/* /etc/node"
)
SCRIPT = f"stat -c '%n %F %a %u:%g %t,%T' {PLACES} 2>&1 | grep -v ' cannot stat'; exit 0"
DEV = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}


def with_devices(bundle: Bundle, devices: list[Device], script: str = SCRIPT) -> Bundle:
    def change(config: Config) -> None:
        config["linux"]["devices"] = devices
        # The runtime makes it read-only after the devices.
        late = {
            "destination": "/mnt",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["ro", "mode=755"],
        }
        config["mounts"].append(late)

    return bundle.script(script).change(change)


def add_links(rootfs: str) -> None:
    for name, target in LINKS.items():
        os.symlink(target, f"{rootfs}/srv/{name}")


def told(output: str) -> list[str]:
    """Return what a container has said, less the link that crun makes and runc does not."""
    return sorted(line for line in output.splitlines() if not line.startswith("/dev/core "))


@pytest.fixture(scope="module")
def of_real_root(trees: Trees, debian_tree: Tree) -> Iterator[list[str]]:
    """What runc by itself shows where the real root of this machine calls it."""
    if not AS_ROOT:
        pytest.skip("the oracle is the runtime of the real root: run the tests as root")
    directory = trees.new_directory("bundle", for_user=False)
    rootfs = trees.copy_all_but_usr(debian_tree.rootless, f"{directory}/rootfs")
    for name in ("srv", "etc/passwd"):
        os.chown(f"{rootfs}/{name}", 0, 0)
    add_links(rootfs)
    subprocess.run(["runc", "spec"], cwd=directory, check=True)

    def change(config: Config) -> None:
        config["root"] = {"path": rootfs, "readonly": False}
        config["process"]["terminal"] = False
        config["linux"]["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}

    bundle = with_devices(Bundle(directory, rootfs).change(change), DEVICES + RELATIVE + BY_LINKS)
    command = ["runc", f"--root={directory}/states", "run", "--bundle", bundle.path, "oracle"]
    done = subprocess.run(
        ["unshare", "--mount", "--cgroup", *command], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    yield told(done.stdout)
    trees.discard(directory)


@pytest.mark.parametrize("is_read_only", [False, True])
@pytest.mark.parametrize("engine", ["notify", "thorough"])
@both_runtimes
def test_as_real_root_has_them(
    engine: str,
    is_read_only: bool,
    runtime: str,
    of_real_root: list[str],
    bundle: MakeBundle,
    runrootless: Runrootless,
) -> None:
    ours = with_devices(bundle(copy=True), DEVICES + RELATIVE + BY_LINKS)
    ours.change(lambda config: config["root"].update(readonly=is_read_only))
    add_links(ours.rootfs)
    name = runrootless.new_id()
    done = runrootless("--engine", engine, "run", "--bundle", ours.path, name)
    assert told(done.check().stdout) == of_real_root
    # Once more by the same name: those that are not in /dev are there by now.
    done = runrootless("--engine", engine, "run", "--bundle", ours.path, name)
    assert told(done.check().stdout) == of_real_root


@both_runtimes
def test_fifos_carry_data_and_owners_can_be_changed(
    runtime: str, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    script = (
        "cat /dev/fifo & echo through >/dev/fifo; wait; echo lost >/dev/null;"
        "chown 3:4 /dev/null /dev/owned; stat -c '%u:%g %a' /dev/null /dev/owned"
    )
    ours = with_devices(bundle(), DEVICES[:12], script)
    assert runrootless.run(ours).check().stdout == "through\n3:4 644\n3:4 666\n"


NOT_MADE = [
    ({"path": "/dev/x", "type": "x", "major": 1}, "invalid device type"),
    ({"path": "/dev/x", "type": "c", "major": -1, "minor": 3}, "wildcard"),
    ({"path": "/dev/x", "type": "c", "uid": -1}, "the uid -1"),
    ({"path": "/dev/x", "type": "p", "fileMode": "0666"}, "fileMode must be a whole number"),
    ({"path": "/etc/passwd/x", "type": "p"}, "/etc/passwd/x: Not a directory"),
    ({"path": "/sys/x", "type": "p"}, "/sys/x: "),
    ({"path": "/proc/x", "type": "b", "major": 8}, "/proc/x: "),
]


@pytest.mark.parametrize(("device", "words"), NOT_MADE)
@both_runtimes
def test_what_cannot_be_made_is_one_line(
    device: Device, words: str, runtime: str, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    ours = with_devices(bundle(), [device], "echo it runs")
    name = runrootless.new_id()
    for _ in range(2):
        done = runrootless("run", "--bundle", ours.path, name)
        assert done.returncode == 1
        assert done.stdout == ""
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_without_an_agent_they_are_dropped_with_a_word(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    ours = with_devices(bundle(), DEVICES, "ls /dev/owned /dev/null 2>/dev/null; exit 0")
    words = ["--debug", "--engine", "zero", "run", "--bundle", ours.path, runrootless.new_id()]
    done = runrootless(*words).check()
    assert done.stdout == "/dev/null\n"
    assert "dropped linux.devices /dev/owned" in done.stderr


@both_runtimes
def test_the_bundle_is_what_the_user_has_given(
    runtime: str, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    """To whoever asks for the state, to hooks, and to a command that begins elsewhere."""
    ours = with_devices(bundle(copy=True), DEVICES, "sleep infinity")
    told_to_hook = f"{ours.path}/told"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat >{told_to_hook}"]}
    ours.change(lambda config: config.update(hooks={"poststop": [hook]}))
    name = runrootless.new_id()
    runrootless("run", "--detach", "--bundle", ours.path, name).check()
    assert json.loads(runrootless("state", name).check().stdout)["bundle"] == ours.path
    script = "touch /srv/f; chown 4:5 /srv/f; stat -c %u:%g /srv/f"
    elsewhere = {"XDG_RUNTIME_DIR": f"{ours.path}/run"}
    runrootless.user.run(["mkdir", "-m", "700", f"{ours.path}/run"]).check()
    states = f"{runrootless.user.env['XDG_RUNTIME_DIR']}/{runtime}"
    words = [f"--root={states}", "exec", name, "sh", "-c", script]
    assert runrootless(*words, env=elsewhere).check().stdout == "4:5\n"
    runrootless("delete", "--force", name).check()
    with open(told_to_hook) as file:
        assert json.load(file)["bundle"] == ours.path


@both_runtimes
def test_what_stands_for_a_device_is_in_the_way_without_a_mount_at_dev(
    runtime: str, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    """runc cannot bind a device over a whiteout."""
    ours = bundle(copy=True).script("echo x >/dev/null && echo works")

    def change(config: Config) -> None:
        config["mounts"] = [one for one in config["mounts"] if one["destination"] == "/proc"]
        config["annotations"] = {"org.runrootless.dns": "none"}

    ours.change(change)
    for name in os.listdir(f"{ours.rootfs}/dev"):
        path = f"{ours.rootfs}/dev/{name}"
        if not os.path.isdir(path) or os.path.islink(path):
            os.unlink(path)
    assert runrootless.run(ours).check().stdout == "works\n"
    os.unlink(f"{ours.rootfs}/dev/null")
    runrootless.user.run(["mknod", f"{ours.rootfs}/dev/null", "c", "0", "0"]).check()
    if runtime == "crun":
        # It does not open what is there.
        assert runrootless.run(ours).check().stdout == "works\n"
        return
    done = runrootless.run(ours).check(1)
    assert len(done.stderr.splitlines()) == 1
    assert f"mounts nothing at /dev, and {ours.rootfs}/dev/null" in done.stderr
    ours.change(lambda config: config["mounts"].append(DEV))
    assert runrootless.run(ours).check().stdout == "works\n"


@both_runtimes
@pytest.mark.parametrize("target", ["elsewhere", "/srv/elsewhere"])
def test_a_link_in_the_place_of_a_device(
    target: str, runtime: str, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    """What is not there is made where the link leads to, if anywhere."""
    ours = bundle(copy=True).script("echo x >/dev/null && echo works")

    def change(config: Config) -> None:
        config["mounts"] = [one for one in config["mounts"] if one["destination"] == "/proc"]
        config["annotations"] = {"org.runrootless.dns": "none"}
        config["linux"]["devices"] = [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]

    ours.change(change)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{ours.rootfs}/dev/null")
    os.symlink(target, f"{ours.rootfs}/dev/null")
    before = sorted(os.listdir(ours.rootfs))
    assert runrootless.run(ours).check().stdout == "works\n"
    assert sorted(os.listdir(ours.rootfs)) == before


def listing(directory: str) -> list[str]:
    """Return what is in a directory and below, with types, sizes, modes and owners."""
    command = ["find", directory, "-printf", r"%P %y %s %#m %U:%G %l\n"]
    return sorted(subprocess.check_output(command, text=True).splitlines())


def bind(config: Config, source: str, access: str, destination: str = "/data") -> None:
    mount = {"destination": destination, "source": source, "options": ["rbind", access]}
    config["mounts"].append({"type": "bind", **mount})


@pytest.mark.parametrize("path", ["/data/node", "/data/new/sub/node", "/srv/by-link/new/node"])
@pytest.mark.parametrize("kind", ["c", "p"])
@pytest.mark.parametrize("is_tmpfs", [False, True])
@both_runtimes
def test_what_is_bound_read_only_is_left(
    path: str,
    kind: str,
    is_tmpfs: bool,
    runtime: str,
    bundle: MakeBundle,
    runrootless: Runrootless,
) -> None:
    ours = with_devices(
        bundle(copy=True),
        [
            {"path": "/srv/made/before", "type": "p"},
            {"path": path, "type": kind, "major": 10, "minor": 200},
        ],
        "echo it runs",
    )
    os.symlink("/data/", f"{ours.rootfs}/srv/by-link")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if is_tmpfs else ours.path) as volume:
        os.chmod(volume, 0o777)
        ours.change(lambda config: bind(config, volume, "ro"))
        os.mkdir(f"{ours.rootfs}/data")
        before = listing(volume), listing(f"{ours.rootfs}/srv")
        done = runrootless.run(ours)
        assert (listing(volume), listing(f"{ours.rootfs}/srv")) == before
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot make the device {path}: Read-only file system" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize("access", ["ro", "rw"])
@pytest.mark.parametrize(
    ("content", "words"), [("precious", "-rw-rw-rw- precious\n"), ("", "/dev/null: File exists")]
)
def test_a_default_device_replaces_no_file_of_the_users(
    content: str, words: str, access: str, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    script = "stat -c %A /dev/null | tr '\\n' ' '; cat /dev/null; echo"
    devices = [{"path": "/dev/null", "type": "c", "major": 1, "minor": 5}]
    ours = with_devices(bundle(copy=True), devices, script)
    volume = f"{ours.path}/volume"
    os.mkdir(volume)
    with open(f"{volume}/null", "w") as file:
        file.write(content)
    os.chmod(f"{volume}/null", 0o666)

    def change(config: Config) -> None:
        config["mounts"] = [one for one in config["mounts"] if one["destination"] == "/proc"]
        bind(config, volume, access, "/dev")

    done = runrootless.run(ours.change(change))
    assert words in done.stdout + done.stderr
    assert [line.rsplit(" ", 2)[0] for line in listing(volume)[1:]] == [
        f"null f {len(content)} 0666"
    ]


@pytest.mark.parametrize("is_read_only", [False, True])
@both_runtimes
def test_a_failure_leaves_nothing(
    is_read_only: bool, runtime: str, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    devices: list[Device] = [
        {"path": "/srv/before", "type": "p"},
        {"path": "/srv/new/sub/node", "type": "b", "major": 8},
        {"path": "/srv/new/sub/other", "type": "c", "major": 10, "minor": 200},
        {"path": f"/srv/new/other/{'deep/' * 10}{'x' * 256}", "type": "p"},
    ]
    ours = with_devices(bundle(copy=True), devices, "echo it runs")
    ours.change(lambda config: config["root"].update(readonly=is_read_only))
    before = listing(f"{ours.rootfs}/srv")
    done = runrootless.run(ours)
    assert (done.returncode, done.stdout) == (1, "")
    assert "File name too long" in done.stderr
    assert listing(f"{ours.rootfs}/srv") == before


def test_directories_may_be_as_deep_as_a_path_is_long(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    # On a tmpfs, which goes with the container.
    path = f"/mnt/{'a/' * 2000}node"
    script = "find /mnt -type p | wc -c"
    ours = with_devices(bundle(), [{"path": path, "type": "p"}], script)
    assert runrootless.run(ours).check().stdout == f"{len(path) + 1}\n"
    ours = with_devices(bundle(), [{"path": f"/mnt/{'a/' * 4000}node", "type": "p"}], script)
    assert "File name too long" in runrootless.run(ours).stderr
