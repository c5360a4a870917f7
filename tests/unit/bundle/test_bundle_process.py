"""The process of a spec, as an unprivileged caller can start it."""

from pathlib import Path
from typing import Any

import pytest

from runrootless.bundle.identity import Identity
from runrootless.bundle.process import (
    clamp_rlimits,
    drop_oom_score_adj,
    set_home,
    take_user,
    use_default_capabilities,
)
from runrootless.errors import Error
from support.machines import Machine

UNDECIDED = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


class TestUser:
    def test_it_becomes_0_and_is_remembered(self) -> None:
        process = {"user": {"uid": 5, "gid": 6, "additionalGids": [7, 8], "username": "x"}}
        assert take_user(process) == Identity(5, 6, (7, 8))
        assert process == {"user": {"uid": 0, "gid": 0}}

    def test_without_a_user_it_is_root(self) -> None:
        process: dict[str, Any] = {}
        assert take_user(process) == Identity(0, 0)
        assert process == {"user": {"uid": 0, "gid": 0}}

    def test_the_umask_stays(self) -> None:
        process = {"user": {"uid": 5, "gid": 6, "umask": 0o077}}
        take_user(process)
        assert process["user"] == {"uid": 0, "gid": 0, "umask": 0o077}

    @pytest.mark.parametrize(
        "user",
        [
            {"uid": -1},
            {"uid": 0xFFFFFFFF},
            {"gid": 1 << 32},
            {"additionalGids": [0, -5]},
        ],
    )
    def test_ids_that_the_kernel_has_not(self, user: dict[str, Any]) -> None:
        with pytest.raises(Error, match=r"^process\.user\.uid, gid and additionalGids must be"):
            take_user({"user": user})

    def test_the_highest_id(self) -> None:
        assert take_user({"user": {"uid": 0xFFFFFFFE}}) == Identity(0xFFFFFFFE, 0)


class TestCapabilities:
    @pytest.mark.parametrize(
        "sets",
        [
            None,
            # runc spec, version 1.1; crun spec; older versions of runc.
            dict.fromkeys(("bounding", "effective", "permitted", "ambient"), UNDECIDED),
            {**dict.fromkeys(("bounding", "effective", "permitted"), UNDECIDED), "inheritable": []},
            {"bounding": UNDECIDED[::-1]},
        ],
    )
    def test_what_nobody_chose_is_replaced(self, sets: dict[str, list[str]] | None) -> None:
        process = {"capabilities": sets} if sets else {}
        use_default_capabilities(process)
        chosen = process["capabilities"]
        assert chosen is not None
        assert set(chosen) == {"bounding", "effective", "permitted"}
        for names in chosen.values():
            assert {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SYS_CHROOT", "CAP_SETUID"} < set(names)
            assert len(set(names)) == len(names) == 14

    @pytest.mark.parametrize(
        "sets",
        [
            {},
            {"bounding": [], "effective": []},
            {"bounding": UNDECIDED[:2]},
            {"bounding": [*UNDECIDED, "CAP_SYS_ADMIN"]},
            {"bounding": UNDECIDED, "effective": ["CAP_CHOWN"]},
        ],
    )
    def test_a_choice_is_kept(self, sets: dict[str, list[str]]) -> None:
        process = {"capabilities": {name: list(names) for name, names in sets.items()}}
        use_default_capabilities(process)
        assert process == {"capabilities": sets}


class TestLimits:
    def test_no_higher_than_the_callers_hard_limit(self) -> None:
        process = {
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": 2048, "hard": 4096},
                {"type": "RLIMIT_NPROC", "soft": 100, "hard": 4096},
                {"type": "RLIMIT_CORE", "soft": 1, "hard": 2},
                {"type": "RLIMIT_CPU", "soft": (1 << 64) - 1, "hard": (1 << 64) - 1},
            ]
        }
        limits = {"RLIMIT_NOFILE": 1024, "RLIMIT_NPROC": 2000, "RLIMIT_CPU": (1 << 64) - 1}
        clamp_rlimits(process, Machine(limits=limits))
        assert process["rlimits"] == [
            {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024},
            {"type": "RLIMIT_NPROC", "soft": 100, "hard": 2000},
            {"type": "RLIMIT_CORE", "soft": 1, "hard": 2},
            {"type": "RLIMIT_CPU", "soft": (1 << 64) - 1, "hard": (1 << 64) - 1},
        ]

    def test_the_one_that_the_emulation_uses_goes(self) -> None:
        process = {"rlimits": [{"type": "RLIMIT_RTTIME", "soft": 1, "hard": 1}]}
        clamp_rlimits(process, Machine())
        assert process["rlimits"] == []

    def test_none(self) -> None:
        process: dict[str, Any] = {}
        clamp_rlimits(process, Machine())
        assert process == {}


@pytest.mark.parametrize(
    ("wanted", "own", "kept"), [(-500, 0, False), (0, 0, True), (500, 0, True), (100, 200, False)]
)
def test_oom_score_adj_only_rises(wanted: int, own: int, kept: bool) -> None:
    process = {"oomScoreAdj": wanted}
    drop_oom_score_adj(process, Machine(oom_score_adj=own))
    assert process == ({"oomScoreAdj": wanted} if kept else {})


class TestHome:
    @pytest.fixture
    def root(self, tmp_path: Path) -> str:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/passwd").write_text("u:x:5:5::/home/u:/bin/sh\n")
        return str(tmp_path)

    @pytest.mark.parametrize("environment", [None, [], ["A=b"], ["HOME=", "A=b"]])
    def test_the_users_home(self, root: str, environment: list[str] | None) -> None:
        process = {} if environment is None else {"env": environment}
        assert set_home(process, Identity(5, 5), root)
        rest = [entry for entry in environment or [] if entry != "HOME="]
        assert process["env"] == [*rest, "HOME=/home/u"]

    def test_of_a_user_without_an_entry(self, root: str) -> None:
        process: dict[str, Any] = {}
        assert set_home(process, Identity(6, 5), root)
        assert process["env"] == ["HOME=/"]

    def test_the_specs_own(self, root: str) -> None:
        process = {"env": ["HOME=/x"]}
        assert not set_home(process, Identity(5, 5), root)
        assert process == {"env": ["HOME=/x"]}

    def test_roots_is_the_runtimes_business(self, root: str) -> None:
        process = {"env": ["A=b"]}
        assert not set_home(process, Identity(0, 5), root)
        assert process == {"env": ["A=b"]}
