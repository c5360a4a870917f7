"""What a config.json lacks where nobody makes it rootless."""

from pathlib import Path
from typing import Any

import pytest

from runrootless.bundle import unaided
from runrootless.bundle.host import HostFacts
from runrootless.errors import Error

HOOKS = {"createRuntime": [{"path": "/usr/bin/runrootless", "args": ["runrootless", "hook"]}]}


def spec(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    (tmp_path / "rootfs").mkdir(exist_ok=True)
    host = HostFacts()
    mapping = {"containerID": 0, "size": 1}
    return {
        "process": {"args": ["true"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "hooks": HOOKS,
        "mounts": [],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "user"}],
            "uidMappings": [{**mapping, "hostID": host.uid}],
            "gidMappings": [{**mapping, "hostID": host.gid}],
        },
        **changes,
    }


def lacking(tmp_path: Path, given: dict[str, Any]) -> str:
    return "\n".join(unaided.lacking(given, str(tmp_path), HostFacts()))


def test_the_hook_itself(tmp_path: Path) -> None:
    assert "hooks.createRuntime" not in lacking(tmp_path, spec(tmp_path))
    assert "hooks.createRuntime" in lacking(tmp_path, spec(tmp_path, hooks={}))
    other = {"createRuntime": [{"path": "/bin/hook"}]}
    assert "hooks.createRuntime" in lacking(tmp_path, spec(tmp_path, hooks=other))
    poststart = {"poststart": HOOKS["createRuntime"]}
    assert "hooks.createRuntime" in lacking(tmp_path, spec(tmp_path, hooks=poststart))


def test_mounts_that_only_root_may_make(tmp_path: Path) -> None:
    mounts = [
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["gid=5"]}
    ]
    assert "/dev/pts" in lacking(tmp_path, spec(tmp_path, mounts=mounts))


@pytest.mark.parametrize(
    ("process", "words"),
    [
        ({"user": {"uid": 5, "gid": 0}}, "process.user"),
        ({"user": {"uid": 0, "gid": 0, "additionalGids": [0]}}, "process.user"),
        ({"rlimits": [{"type": "RLIMIT_RTTIME", "soft": 1, "hard": 1}]}, "RLIMIT_RTTIME"),
    ],
)
def test_what_cannot_be_started(tmp_path: Path, process: dict[str, Any], words: str) -> None:
    given = spec(tmp_path)
    given["process"].update(process)
    assert words in lacking(tmp_path, given)
    with pytest.raises(Error, match=words):
        unaided.require(given)


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["seccomp"], "action": "SCMP_ACT_KILL"}],
        },
    ],
)
def test_profiles(tmp_path: Path, profile: dict[str, Any]) -> None:
    given = spec(tmp_path)
    given["linux"]["seccomp"] = profile
    with pytest.raises(Error, match="seccomp"):
        unaided.require(given)
