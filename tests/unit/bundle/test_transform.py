"""From the spec of a bundle to one that its unprivileged caller can run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from runrootless.bundle import transform as concerns
from runrootless.bundle.host import HostFacts
from runrootless.bundle.identity import Identity
from runrootless.bundle.transform import transform
from runrootless.errors import Error
from support.machines import Machine


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    return str(tmp_path)


def minimal(**linux: Any) -> dict[str, Any]:
    return {
        "process": {"args": ["sh"], "cwd": "/", "env": []},
        "root": {"path": "rootfs"},
        "linux": linux,
    }


def transformed(bundle: str, spec: dict[str, Any], host: HostFacts | None = None) -> Any:
    transform(spec, bundle, host or Machine(), False)
    return spec["linux"]


class TestNamespaces:
    def test_the_caller_is_root_in_one_of_its_own(self, bundle: str) -> None:
        linux = transformed(bundle, minimal(), Machine(uid=1000, gid=1001))
        assert linux["namespaces"] == [{"type": "user"}]
        assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
        assert linux["gidMappings"] == [{"containerID": 0, "hostID": 1001, "size": 1}]

    def test_instead_of_any_other(self, bundle: str) -> None:
        linux = transformed(
            bundle,
            minimal(
                namespaces=[{"type": "user", "path": "/proc/1/ns/user"}, {"type": "pid"}],
                uidMappings=[{"containerID": 0, "hostID": 100000, "size": 65536}],
                gidMappings=[{"containerID": 0, "hostID": 100000, "size": 65536}],
            ),
        )
        assert linux["namespaces"] == [{"type": "pid"}, {"type": "user"}]
        assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]

    def test_all_ids_of_the_caller(self, bundle: str) -> None:
        spec = minimal()
        spec["mounts"] = [
            {
                "destination": "/a",
                "type": kind,
                "options": ["uid=5", "gid=16", "uid=16", "gid=17", "gid=0", "gid=x"],
            }
            for kind in ("tmpfs", "devpts")
        ]
        host = Machine(subordinate_ids=([(100, 10), (300, 5)], [(500, 16)]))
        transform(spec, bundle, host, False, real_ids=True)
        assert spec["linux"]["uidMappings"] == [
            {"containerID": 0, "hostID": 1000, "size": 1},
            {"containerID": 1, "hostID": 100, "size": 10},
            {"containerID": 11, "hostID": 300, "size": 5},
        ]
        assert spec["linux"]["gidMappings"] == [
            {"containerID": 0, "hostID": 1001, "size": 1},
            {"containerID": 1, "hostID": 500, "size": 16},
        ]
        for mount in spec["mounts"][:2]:
            assert mount["options"] == ["uid=5", "gid=16", "gid=0"]

    def test_are_not_mapped_where_identities_are_emulated(self, bundle: str) -> None:
        host = Machine(subordinate_ids=([(100, 10)], [(500, 16)]))
        linux = transformed(bundle, minimal(), host)
        assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]

    def test_the_network_is_the_callers(self, bundle: str) -> None:
        linux = transformed(bundle, minimal(namespaces=[{"type": "network"}, {"type": "ipc"}]))
        assert linux["namespaces"] == [{"type": "ipc"}, {"type": "user"}]

    def test_or_a_named_one(self, bundle: str) -> None:
        named = {"type": "network", "path": "/run/netns/x"}
        linux = transformed(bundle, minimal(namespaces=[named]))
        assert linux["namespaces"] == [named, {"type": "user"}]


class TestInTheUserNamespaceOfAnEngine:
    """Below podman and buildah, which have put themselves in one."""

    HOST = Machine(uid=0, gid=0, in_user_namespace=True)

    def test_it_is_the_containers(self, bundle: str) -> None:
        given: list[dict[str, Any]] = [{"type": "pid"}, {"type": "network"}]
        linux = transformed(bundle, minimal(namespaces=given, uidMappings=[]), self.HOST)
        assert linux["namespaces"] == given
        assert "uidMappings" not in linux

    def test_unless_it_wants_another(self, bundle: str) -> None:
        linux = transformed(bundle, minimal(namespaces=[{"type": "user"}]), self.HOST)
        assert linux["namespaces"] == [{"type": "user"}]
        assert linux["uidMappings"] == [{"containerID": 0, "hostID": 0, "size": 1}]

    def test_what_belongs_to_the_network_is_its_own(self, bundle: str) -> None:
        spec = minimal(
            namespaces=[{"type": "network", "path": "/x"}], sysctl={"net.ipv4.ip_forward": "1"}
        )
        spec["mounts"] = [{"destination": "/sys", "type": "sysfs", "source": "sysfs"}]
        assert "sysctl" in transformed(bundle, spec, self.HOST)
        assert spec["mounts"][0]["type"] == "sysfs"

    def test_but_not_that_of_the_hosts_network(self, bundle: str) -> None:
        spec = minimal(sysctl={"net.ipv4.ip_forward": "1"})
        spec["mounts"] = [{"destination": "/sys", "type": "sysfs", "source": "sysfs"}]
        assert transformed(bundle, spec, self.HOST)["sysctl"] == {}
        assert spec["mounts"][0]["source"] == "/sys"

    @pytest.mark.parametrize(
        ("command", "owns"),
        [
            ([], False),
            (["unshare", "--user", "--map-root-user"], True),
            (["unshare", "--user", "--map-user=5"], False),
            (["unshare", "--user", "--map-root-user", "setpriv", "--bounding-set=-all"], False),
        ],
    )
    def test_where_it_is(self, command: list[str], owns: bool) -> None:
        script = (
            "from runrootless.bundle.host import HostFacts as H; print(H().owns_user_namespace())"
        )
        done = subprocess.run(
            [*command, sys.executable, "-c", script], capture_output=True, text=True
        )
        assert done.stdout == f"{owns}\n", done


class TestCgroups:
    SETTINGS: ClassVar[dict[str, Any]] = {"resources": {"pids": {"limit": 5}}, "cgroupsPath": "/x"}

    def test_dropped(self, bundle: str) -> None:
        linux = transformed(bundle, minimal(**self.SETTINGS))
        assert "resources" not in linux
        assert "cgroupsPath" not in linux

    def test_kept_with_a_cgroup_of_the_callers_own(self, bundle: str) -> None:
        linux = transformed(bundle, minimal(**self.SETTINGS), Machine(cgroup=True))
        assert linux["resources"] == self.SETTINGS["resources"]
        assert linux["cgroupsPath"] == "/x"

    def test_kept_for_systemd(self, bundle: str) -> None:
        spec = minimal(**self.SETTINGS)
        transform(spec, bundle, Machine(), True)
        assert spec["linux"]["cgroupsPath"] == "/x"


@pytest.mark.parametrize(
    ("device", "kept"),
    [
        ({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}, True),
        ({"path": "/dev/fuse", "type": "u", "major": 10, "minor": 229}, True),
        ({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 1}, False),
        ({"path": "/dev/fuse", "type": "b", "major": 10, "minor": 229}, False),
        ({"path": "/dev/none", "type": "c", "major": 10, "minor": 229}, False),
        ({"path": "/run/fifo", "type": "p"}, True),
        ({"path": "/dev/fuse", "type": "p"}, False),
    ],
)
def test_devices(bundle: str, device: dict[str, Any], kept: bool) -> None:
    host = Machine(devices={"/dev/fuse": ("c", 10, 229), "/run/fifo": ("p", 0, 0)})
    linux = transformed(bundle, minimal(devices=[device]), host)
    assert linux["devices"] == ([device] if kept else [])


def test_devices_that_an_agent_makes(bundle: str) -> None:
    devices: list[dict[str, Any]] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "uid": 5, "fileMode": 0o600},
        {"path": "/dev/fuse", "type": "p"},
        {"path": "/dev//fuse", "type": "p"},
        {"path": "/dev/null", "type": "c", "major": 9, "minor": 9},
        {"path": "run/fifo", "type": "p", "major": 5, "gid": 4294967295},
        {"path": "", "type": "c"},
        {"path": "/dev/../dev/ptmx", "type": "c"},
    ]
    host = Machine(devices={"/dev/fuse": ("c", 10, 229), "/run/fifo": ("p", 0, 0)})
    spec = minimal(devices=devices)
    transform(spec, bundle, host, False, emulates_devices=True)
    assert spec["linux"]["devices"] == devices[:1]
    assert [tuple(one.values()) for one in spec[concerns.MEMORY]["devices"]] == [
        ("/dev/fuse", 0o20600, os.makedev(10, 229), 5, 0, False, True),
        ("/dev/null", 0o20666, os.makedev(9, 9), 0, 0, True, False),
        ("/run/fifo", 0o10666, 0, 0, 0, False, False),
    ]


@pytest.mark.parametrize(
    "device",
    [
        {"path": "/dev/x", "type": "d"},
        {"path": "/dev/x"},
        {"path": "/dev/x", "type": "c", "minor": -1},
        {"path": "/dev/x", "type": "p", "gid": 1 << 32},
    ],
)
def test_devices_that_no_runtime_could_make(bundle: str, device: dict[str, Any]) -> None:
    with pytest.raises(Error, match=r"linux\.devices: "):
        transform(minimal(devices=[device]), bundle, Machine(), False, emulates_devices=True)


def test_sysctls_of_the_network_are_the_hosts(bundle: str) -> None:
    settings = {"net.core.somaxconn": "1", "net/ipv4/ip_forward": "1", "kernel.shmmax": "5"}
    linux = transformed(bundle, minimal(sysctl=dict(settings)))
    assert linux["sysctl"] == {"kernel.shmmax": "5"}
    named = [{"type": "network", "path": "/run/netns/x"}]
    linux = transformed(bundle, minimal(sysctl=dict(settings), namespaces=named))
    assert linux["sysctl"] == settings


def test_what_takes_privileges_goes(bundle: str) -> None:
    assert "intelRdt" not in transformed(bundle, minimal(intelRdt={"closID": "x"}))


class TestRoot:
    def test_relative_to_the_bundle(self, bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(os.path.dirname(bundle))
        spec = minimal()
        transform(spec, os.path.basename(bundle), Machine(), False)
        assert spec["root"]["path"] == f"{bundle}/rootfs"

    def test_absolute(self, bundle: str) -> None:
        spec = minimal()
        spec["root"]["path"] = f"{bundle}/rootfs"
        transform(spec, "/elsewhere", Machine(), False)
        assert spec["root"]["path"] == f"{bundle}/rootfs"

    def test_missing(self, bundle: str) -> None:
        os.rmdir(f"{bundle}/rootfs/etc")
        os.rmdir(f"{bundle}/rootfs")
        with pytest.raises(Error, match=f"file system {bundle}/rootfs is missing: unpack"):
            transform(minimal(), bundle, Machine(), False)


def test_who_the_process_is_to_be(bundle: str) -> None:
    spec = minimal()
    user = {"uid": 5, "gid": 6, "additionalGids": [7]}
    spec["process"]["user"] = dict(user)
    assert transform(spec, bundle, Machine(), False) == Identity(5, 6, (7,))
    assert spec["process"]["user"] == {"uid": 0, "gid": 0}
    assert spec["process"]["env"] == ["HOME=/"]
    assert spec[concerns.MEMORY] == {"bundle": bundle, "user": user, "homeAdded": True}


@pytest.mark.skipif(shutil.which("runc", path="/usr/sbin:/usr/bin") is None, reason="no runc")
def test_runcs_own_rootless_spec(bundle: str, tmp_path: Path) -> None:
    """What `runc spec --rootless` writes is what becomes of what `runc spec` writes."""

    def written(*arguments: str) -> Any:
        directory = tmp_path / f"spec{len(arguments)}"
        directory.mkdir()
        environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin"}
        command = ["runc", "spec", *arguments]
        subprocess.run(command, cwd=directory, env=environment, check=True)
        return json.loads((directory / "config.json").read_text())

    spec, rootless = written(), written("--rootless")
    transform(spec, bundle, Machine(uid=os.geteuid(), gid=os.getegid(), files=("/sys",)), False)

    def by_type(one: Any) -> Any:
        return sorted(one["linux"].pop("namespaces"), key=lambda namespace: namespace["type"])

    assert by_type(spec) == by_type(rootless)
    assert spec["mounts"] == rootless["mounts"]
    assert spec["linux"] == rootless["linux"]


def test_facts_of_this_machine() -> None:
    host = HostFacts()
    assert (host.uid, host.gid) == (os.geteuid(), os.getegid())
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert host.hard_limit("RLIMIT_NOFILE") == hard % (1 << 64)
    for name in dir(resource):
        # The module has names of other systems too, and one that is another's.
        if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE":
            hard = resource.getrlimit(getattr(resource, name))[1]
            assert host.hard_limit(name) == hard % (1 << 64), name
    assert host.hard_limit("RLIMIT_NONE") is None
    assert host.device("/dev/null") == ("c", 1, 3)
    assert host.device("/etc") is None
    assert host.device("/none") is None
    with open("/proc/self/oom_score_adj") as file:
        assert host.oom_score_adj() == int(file.read())
    assert host.locked_mount_options("/none") == []
    flags = os.statvfs("/proc").f_flag
    for flag, name in ((os.ST_NOSUID, "nosuid"), (os.ST_NOEXEC, "noexec"), (os.ST_NODEV, "nodev")):
        assert (name in host.locked_mount_options("/proc")) == bool(flags & flag)
