"""Whether a container gets the fast path, and how its process is told."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless import fast_path
from runrootless.bundle.host import HostFacts
from runrootless.emulation.fast_state import PATH
from runrootless.errors import Error


@pytest.mark.parametrize(
    ("option", "environment", "annotation", "wanted"),
    [
        ("", "", "", False),
        ("on", "off", "off", True),
        ("off", "on", "on", False),
        ("", "on", "off", True),
        ("", "off", "on", False),
        ("", "", "on", True),
    ],
)
def test_the_nearest_wish_counts(
    option: str, environment: str, annotation: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNROOTLESS_FAST_PATH", environment)
    assert fast_path.is_wanted(option, annotation) is wanted


def test_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNROOTLESS_FAST_PATH", "1")
    with pytest.raises(Error, match=r"\$RUNROOTLESS_FAST_PATH takes on or off, not 1"):
        fast_path.is_wanted("", "on")
    with pytest.raises(Error, match=r"the annotation org\.runrootless\.fast-path takes on or off"):
        monkeypatch.delenv("RUNROOTLESS_FAST_PATH")
        fast_path.is_wanted("", "yes")


class Host(HostFacts):
    def __init__(self, *options: str) -> None:
        super().__init__()
        self._options = list(options)

    def locked_mount_options(self, path: str) -> list[str]:
        return self._options


def spec(*mounts: tuple[str, str], **linux: Any) -> dict[str, Any]:
    found = [{"destination": place, "type": kind} for place, kind in mounts]
    linux = {"namespaces": [{"type": "mount"}], **linux}
    return {"mounts": found, "process": {"args": ["true"]}, "linux": linux}


DEV = ("/dev", "tmpfs")


def test_what_is_in_its_way() -> None:
    def reason(of: dict[str, Any], engine: str = "notify", *options: str) -> str:
        return fast_path.obstacle(of, engine, "/run/user/1/x", Host(*options)) or ""

    assert reason(spec(("/proc", "proc"), DEV, ("/dev/shm", "tmpfs"))) == ""
    assert "engine thorough" in reason(spec(DEV), "thorough")
    assert "tmpfs" in reason(spec(("/proc", "proc")))
    assert "tmpfs" in reason(spec(("/dev/", "bind")))
    assert "tmpfs" in reason(spec(DEV, ("/dev/runrootless", "bind")))
    assert "executed in /run/user/1/x" in reason(spec(DEV), "notify", "nosuid", "noexec")
    for action in ("SCMP_ACT_KILL", "SCMP_ACT_TRAP", "SCMP_ACT_TRACE"):
        rules = [{"names": ["getxattr"], "action": action}]
        profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
        assert "seccomp" in reason(spec(DEV, seccomp=profile))
        assert "seccomp" in reason(spec(DEV, seccomp={"defaultAction": action}))
    assert reason(spec(DEV, seccomp={"defaultAction": "SCMP_ACT_ERRNO"})) == ""
    joined = [{"type": "mount", "path": "/proc/1/ns/mnt"}]
    assert "joins" in reason(spec(DEV, namespaces=joined))
    for name in ("selinuxLabel", "apparmorProfile"):
        labelled = spec(DEV)
        labelled["process"][name] = "x"
        assert "label" in reason(labelled)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, [f"LD_PRELOAD={PATH}"]),
        (["A=b"], ["A=b", f"LD_PRELOAD={PATH}"]),
        (["LD_PRELOAD=/a.so /b.so", "A=b"], [f"LD_PRELOAD=/a.so /b.so:{PATH}", "A=b"]),
        (["LD_PRELOAD="], [f"LD_PRELOAD={PATH}"]),
        ([f"LD_PRELOAD=/a.so:{PATH}"], [f"LD_PRELOAD=/a.so:{PATH}"]),
    ],
)
def test_the_environment(before: list[str] | None, after: list[str]) -> None:
    process: dict[str, Any] = {} if before is None else {"env": before}
    fast_path.preload(process)
    assert process["env"] == after


@given(st.lists(st.sampled_from(["A=b", "LD_PRELOAD=/a.so", "LD_PRELOAD=", f"LD_PRELOAD={PATH}"])))
def test_once_is_enough(environment: list[str]) -> None:
    process = {"env": environment}
    fast_path.preload(process)
    once = list(process["env"])
    fast_path.preload(process)
    assert process["env"] == once
