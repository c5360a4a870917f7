"""The choice of an engine, and what those without an agent make of a spec."""

import os
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runrootless import engines
from runrootless.bundle.identity import Identity
from runrootless.bundle.profile import denied
from runrootless.engines import nested, none, notify, proot, thorough, zero
from runrootless.errors import Error
from runrootless.linux.seccomp import AUDIT_ARCHITECTURES
from runrootless.linux.syscall_numbers import NUMBERS
from support import bpf

if TYPE_CHECKING:
    # For mypy: each module has all that the command line needs.
    _: tuple[engines.Engine, ...] = (notify, thorough, nested, proot, zero, none)

ROOT = Identity(0, 0)
DEV = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]}


@pytest.fixture(autouse=True)
def no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNROOTLESS_ENGINE", raising=False)


def kernel_with(monkeypatch: pytest.MonkeyPatch, directory: Path, actions: str) -> None:
    path = directory / "actions_avail"
    path.write_text(f"{actions}\n")
    monkeypatch.setattr(notify, "_ACTIONS", str(path))


class TestChoice:
    @pytest.mark.parametrize(
        ("option", "environment", "annotation", "name", "reason"),
        [
            ("zero", "none", "notify", "zero", "--engine names it"),
            ("thorough", "none", "zero", "thorough", "--engine names it"),
            ("", "none", "zero", "none", "$RUNROOTLESS_ENGINE names it"),
            ("", "", "zero", "zero", "the annotation org.runrootless.engine names it"),
            ("", "", "", "notify", "the best that this host can do"),
            ("auto", "none", "zero", "notify", "the best that this host can do"),
            ("", "auto", "zero", "notify", "the best that this host can do"),
        ],
    )
    def test_the_nearest_wish_counts(
        self,
        monkeypatch: pytest.MonkeyPatch,
        option: str,
        environment: str,
        annotation: str,
        name: str,
        reason: str,
    ) -> None:
        monkeypatch.setenv("RUNROOTLESS_ENGINE", environment)
        choice = engines.choose(option, annotation)
        assert (choice.name, choice.reason) == (name, reason)
        engine = {"notify": notify, "thorough": thorough, "zero": zero, "none": none}[name]
        assert choice.engine is engine

    def test_an_unknown_name_is_told_with_its_source(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(Error, match=r"no engine magic: the annotation org\.runrootless"):
            engines.choose("", "magic")
        monkeypatch.setenv("RUNROOTLESS_ENGINE", "../x")
        with pytest.raises(Error, match=r"no engine \.\./x: \$RUNROOTLESS_ENGINE takes notify,"):
            engines.choose("", "notify")

    def test_a_kernel_that_cannot_notify(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        kernel_with(monkeypatch, tmp_path, "kill_process kill_thread trap errno trace log allow")
        with pytest.raises(Error, match=r"notify, which --engine names, cannot work here: .*5\.9"):
            engines.choose("notify", "")
        choice = engines.choose("", "")
        assert choice.engine is proot
        assert choice.automatic
        assert choice.reason.startswith("notify cannot work: ")
        assert engines.choose("", "zero").engine is zero

    def test_a_kernel_that_can(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        kernel_with(monkeypatch, tmp_path, "kill_process errno user_notif allow")
        assert notify.obstacle() is None

    def test_a_kernel_that_does_not_tell(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(notify, "_ACTIONS", str(tmp_path / "hidden"))
        assert notify.obstacle() is None


SUCCESS = bpf.action("SCMP_ACT_ERRNO", 0)


class TestFilterOfZero:
    @staticmethod
    def answer(name: str, *arguments: int, denied: tuple[str, ...] = ()) -> int:
        data = struct.pack(
            "=IIQ6Q",
            NUMBERS["x86_64"][name],
            AUDIT_ARCHITECTURES["x86_64"],
            0,
            *arguments,
            *[0] * (6 - len(arguments)),
        )
        program = zero.filter_program("x86_64", denied)
        return bpf.run(list(struct.iter_unpack("=HBBI", program)), data)

    def test_what_succeeds_without_doing_anything(self) -> None:
        chown = ["chown", "fchown", "lchown", "fchownat"]
        identity = [f"set{name}" for name in ("uid", "gid", "reuid", "regid", "resuid", "resgid")]
        identity += ["setfsuid", "setfsgid", "setgroups", "capset"]
        assert {self.answer(name) for name in chown + identity} == {SUCCESS}
        assert set(chown + identity) <= set(zero.calls())
        real = ["stat", "newfstatat", "statx", "getuid", "getgroups", "capget", "openat", "execve"]
        real += ["setrlimit", "prlimit64", "chmod", "setxattr", "chroot", "unshare", "bind"]
        assert {self.answer(name) for name in real} == {bpf.ALLOW}

    @pytest.mark.parametrize(("name", "before"), [("mknod", 1), ("mknodat", 2)])
    def test_devices_are_not_made_and_all_else_is(self, name: str, before: int) -> None:
        arguments = [0] * before
        for kind in (stat.S_IFCHR, stat.S_IFBLK):
            assert self.answer(name, *arguments, kind | 0o666, 0x103) == SUCCESS
        for kind in (0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK):
            assert self.answer(name, *arguments, kind | 0o666, 0) == bpf.ALLOW

    def test_what_a_profile_denies_is_left_to_that(self) -> None:
        profile = {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                {"names": ["chown", "mknod"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["fchown"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0}]},
                {"names": ["setuid"], "action": "SCMP_ACT_KILL_PROCESS"},
            ],
        }
        left = denied(profile, zero.calls())
        assert set(zero.calls()) - set(left) == {"chown", "mknod", "fchown"}
        assert self.answer("chown", denied=tuple(left)) == SUCCESS
        assert self.answer("lchown", denied=tuple(left)) == bpf.ALLOW
        assert self.answer("setuid", denied=tuple(left)) == bpf.ALLOW


def spec(*mounts: dict[str, Any], env: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "process": {"args": ["sh"], "env": list(env), "user": {"uid": 0, "gid": 0}},
        "mounts": list(mounts),
        "linux": {},
    }


class TestZero:
    def test_apt_is_told_outside_the_image(self, tmp_path: Path) -> None:
        changed = spec(DEV)
        zero.apply(changed, str(tmp_path), ROOT)
        assert changed["process"]["env"] == ["APT_CONFIG=/dev/runrootless/apt.conf"]
        assert changed["process"]["noNewPrivileges"] is True
        assert "seccomp" not in changed["linux"]
        mount = changed["mounts"][1]
        assert mount["destination"] == "/dev/runrootless/apt.conf"
        assert Path(mount["source"]).read_text() == 'APT::Sandbox::User "root";\n'
        further = {"env": ["A=b"]}
        zero.apply_process(further, str(tmp_path), ROOT)
        zero.apply_process(further, str(tmp_path), ROOT)
        assert further["env"] == ["A=b", "APT_CONFIG=/dev/runrootless/apt.conf"]

    def test_not_where_that_would_be_in_the_image(self, tmp_path: Path) -> None:
        changed = spec({**DEV, "type": "bind", "source": "/dev"})
        zero.apply(changed, str(tmp_path), ROOT)
        assert changed["process"]["env"] == []
        assert len(changed["mounts"]) == 1
        assert os.listdir(tmp_path) == []

    def test_a_setting_of_the_users_stays(self, tmp_path: Path) -> None:
        changed = spec(DEV, env=("APT_CONFIG=/etc/mine",))
        zero.apply(changed, str(tmp_path), ROOT)
        assert changed["process"]["env"] == ["APT_CONFIG=/etc/mine"]


class TestNone:
    @staticmethod
    def mapped(uids: int, gids: int) -> dict[str, Any]:
        changed = spec()
        changed["linux"] = {
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": uids}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": gids}],
        }
        changed["process"]["user"]["umask"] = 18
        return changed

    def test_the_user_is_real(self) -> None:
        changed = self.mapped(100, 10)
        none.apply(changed, "", Identity(99, 9, (5, 6)))
        assert changed["process"]["user"] == {
            "uid": 99,
            "gid": 9,
            "additionalGids": [5, 6],
            "umask": 18,
        }
        assert "seccomp" not in changed["linux"]

    @pytest.mark.parametrize(
        ("identity", "text"),
        [
            (Identity(100, 0), "no user 100 with the engine none, only 0 to 99"),
            (Identity(99, 1), "no group 1 with the engine none, only 0:"),
            (Identity(0, 0, (0, 7)), "no group 7"),
        ],
    )
    def test_a_user_that_is_not_mapped(self, identity: Identity, text: str) -> None:
        with pytest.raises(Error, match=text):
            none.apply(self.mapped(100, 1), "", identity)
