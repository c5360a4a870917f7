"""What a derived bundle lacks, in words."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest

from runrootless.bundle.differences import differences
from runrootless.bundle.transform import transform
from support.machines import Machine


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    os.mkdir(tmp_path / "rootfs")
    return str(tmp_path)


def lines_of(bundle: str, machine: Machine, **linux: Any) -> list[str]:
    return lines_of_spec(bundle, machine, {"linux": linux})


def lines_of_spec(bundle: str, machine: Machine, more: dict[str, Any]) -> list[str]:
    process = {"args": ["x"], **more.pop("process", {})}
    before = {"root": {"path": "rootfs"}, "process": process, **more}
    after = copy.deepcopy(before)
    transform(after, bundle, machine, False)
    return [line.partition(":")[0] for line in differences(before, after)]


def test_nothing_is_said_of_what_stays(bundle: str) -> None:
    mounts = [{"destination": "/tmp", "type": "tmpfs", "source": "x", "options": ["nosuid"]}]
    spec = {"linux": {"namespaces": [{"type": "mount"}]}, "mounts": mounts, "hostname": "x"}
    assert lines_of_spec(bundle, Machine(), spec) == []


def test_cgroups(bundle: str) -> None:
    resources = {"memory": {"limit": 5}, "pids": {"limit": 5}}
    assert lines_of(bundle, Machine(), resources=resources, cgroupsPath="/x") == [
        "dropped linux.resources.memory",
        "dropped linux.resources.pids",
        "dropped linux.cgroupsPath /x",
    ]


def test_devices_and_sysctls(bundle: str) -> None:
    devices = [{"path": "/dev/nosuch", "type": "c", "major": 1, "minor": 2}]
    sysctl = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "5"}
    assert lines_of(bundle, Machine(), devices=devices, sysctl=sysctl, intelRdt={}) == [
        "dropped linux.sysctl net.ipv4.ip_forward",
        "dropped linux.intelRdt",
        "dropped linux.devices /dev/nosuch",
    ]


def test_namespaces_and_maps(bundle: str) -> None:
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    namespaces = [{"type": "network"}, {"type": "user", "path": "/proc/1/ns/user"}]
    assert lines_of(bundle, Machine(), namespaces=namespaces, uidMappings=ids) == [
        "dropped linux.namespaces network",
        "dropped linux.namespaces user /proc/1/ns/user",
        "dropped linux.uidMappings",
    ]


def test_mounts(bundle: str) -> None:
    mounts = [
        {"destination": "/dev/pts", "type": "devpts", "source": "x", "options": ["gid=5"]},
        {"destination": "/sys", "type": "sysfs", "source": "x", "options": ["ro"]},
    ]
    assert lines_of_spec(bundle, Machine(), {"mounts": mounts}) == [
        "dropped the mount option gid=5 of /dev/pts",
        "dropped the mount /sys of a new sysfs",
    ]


def test_the_process(bundle: str) -> None:
    limits = [
        {"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40},
        {"type": "RLIMIT_RTTIME", "soft": 1, "hard": 1},
    ]
    process = {"rlimits": limits, "oomScoreAdj": -1000}
    found = lines_of_spec(bundle, Machine(limits={"RLIMIT_NOFILE": 9}), {"process": process})
    assert [line.split(" of ")[0] for line in found] == [
        "dropped process.rlimits RLIMIT_NOFILE",
        "dropped process.rlimits RLIMIT_RTTIME",
        "dropped process.oomScoreAdj -1000",
    ]
