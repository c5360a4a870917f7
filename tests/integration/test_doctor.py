"""``doctor`` on this host, and on hosts where something is in the way."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from conftest import MakeBundle
from runrootless.emulation.seccomp_filter import build
from runrootless.linux import namespaces, seccomp
from runrootless.linux.process import set_no_new_privileges
from support.bundles import make_rootless
from support.containers import Runrootless
from support.processes import Result
from support.users import AS_ROOT

USER_NAMESPACE = (namespaces.CLONE_NEWUSER, namespaces.CLONE_NEWUSER)


def findings(done: Result) -> dict[str, dict[str, str]]:
    """Return the findings of a JSON report by name."""
    return {found["name"]: found for found in json.loads(done.stdout)["findings"]}


def inside(runrootless: Runrootless, preparation: str, *args: str, unshare: str = "-rm") -> Result:
    """Run the command in new namespaces of the user's, which a script has prepared."""
    command = shlex.join(runrootless.command(*args))
    script = f"{preparation}\n{command}"
    return runrootless.user.run(["unshare", *unshare.split(), "sh", "-ec", script])


def test_tracing_and_what_allows_it(runrootless: Runrootless) -> None:
    found = findings(runrootless("doctor", "--json"))["hook, attach"]
    yama = "/proc/sys/kernel/yama/ptrace_scope"
    if not os.path.exists(yama):
        assert (found["status"], found["text"]) == (
            "ok",
            "traced a process; this kernel has no Yama",
        )
        return
    scope = Path(yama).read_text().strip()
    assert found["status"] == ("info" if scope == "3" else "ok")
    assert f"kernel.yama.ptrace_scope is {scope}" in found["text"]


def test_this_host(runrootless: Runrootless) -> None:
    done = runrootless("doctor").check()
    assert "The engine that auto takes is notify." in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    for name in ("kernel", "user namespaces", "/proc", "seccomp notify", "runc"):
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"{name} "))
        assert line[18:20] == "ok", line
    assert os.uname().release in done.stdout
    version = subprocess.run(["runc", "--version"], capture_output=True, text=True).stdout
    assert version.split()[2] in done.stdout


@pytest.mark.parametrize(
    ("layout", "is_refused"),
    [
        (":", None),
        ("mount -t cgroup2 none /sys/fs/cgroup", False),
        ("mount -t tmpfs none /sys/fs/cgroup", False),
        ("mount -t tmpfs none /sys/fs/cgroup; mkdir /sys/fs/cgroup/unified", False),
        ("mount -t ramfs none /sys/fs/cgroup", True),
    ],
)
def test_crun_is_ok_where_it_takes_the_layout_of_cgroups(
    layout: str, is_refused: bool | None, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    plain = bundle().script(":")
    plain.change(lambda config: make_rootless(config, 0, 0))
    command = shlex.join(runrootless.command("doctor", "--json"))
    user = runrootless.user
    prepare = ["unshare", "-rmC", "sh", "-c", f'set -e; {layout}; exec sh -c "$1"', "sh"]
    found = findings(user.run([*prepare, command]))["crun"]
    done = user.run([*prepare, f"crun --root {user.home}/crun run --bundle {plain.path} plain"])
    words = ("hybrid mode not supported", "invalid file system type")
    refuses = any(word in done.stderr for word in words)
    assert is_refused in (None, refuses), done.stderr
    assert (found["status"] == "problem") == refuses, (found, done.stderr)


def test_json(runrootless: Runrootless) -> None:
    done = runrootless("doctor", "--json").check()
    report = json.loads(done.stdout)
    assert report["engine"] == "notify"
    assert {found["status"] for found in report["findings"]} <= {"ok", "problem", "info"}
    found = findings(done)
    assert found["user namespaces"]["status"] == "ok"
    assert "none in /etc/subuid and /etc/subgid" in found["subordinate IDs"]["text"]
    assert found["runc"]["status"] == "ok"


def test_it_leaves_nothing_behind(runrootless: Runrootless) -> None:
    before = sorted(os.listdir(runrootless.user.home))
    runrootless("doctor").check()
    assert sorted(os.listdir(runrootless.user.home)) == before


def test_flags(runrootless: Runrootless) -> None:
    assert "runrootless doctor - " in runrootless("doctor", "--help").check().stdout
    assert runrootless("doctor", "--no-such-flag").check(1).stderr.startswith("runrootless: doctor")
    runrootless("doctor", "now").check(1)


LIMIT = "echo 0 >/proc/sys/user/max_user_namespaces"


def test_no_user_namespaces_by_the_sysctl(runrootless: Runrootless) -> None:
    done = inside(runrootless, LIMIT, "doctor").check()
    assert "The engine that auto takes is proot." in done.stdout
    assert "user namespaces: as root: sysctl -w user.max_user_namespaces=15000" in done.stdout
    without = f"{LIMIT}; export RUNROOTLESS_PROOT=/none"
    assert "No engine works here." in inside(runrootless, without, "doctor").check(1).stdout
    found = findings(inside(runrootless, LIMIT, "doctor", "--json").check())
    assert found["user namespaces"]["status"] == "problem"
    assert "ENOSPC: user.max_user_namespaces is 0" in found["user namespaces"]["text"]
    assert found["/proc"]["status"] == "info"
    assert found["seccomp notify"]["status"] == "ok"


def test_emulate_points_to_the_doctor(runrootless: Runrootless) -> None:
    done = inside(runrootless, LIMIT, "emulate", "--engine", "notify", "true").check(125)
    assert done.stderr == (
        "runrootless: no user namespace can be had (No space left on device): "
        "`runrootless doctor` says what is in the way\n"
    )


def test_emulate_without_user_namespaces(runrootless: Runrootless) -> None:
    done = inside(runrootless, LIMIT, "emulate", "--", "sh", "-c", "id -u; chown 1:2 .").check()
    assert done.stdout == "0\n"


def test_no_user_namespaces_by_a_seccomp_filter(runrootless: Runrootless) -> None:
    condition = (0, "SCMP_CMP_MASKED_EQ", *USER_NAMESPACE)
    rows = [("unshare", "", condition), ("clone", "", condition)]
    refusal = build(os.uname().machine, seccomp.RETURN_ERRNO | 1, rows)

    def refuse() -> None:
        set_no_new_privileges()
        seccomp.install(refusal, 0)

    process = runrootless.user.start(runrootless.command("doctor", "--json"), before=refuse)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    report = json.loads(output)
    assert report["engine"] == "proot"
    found = {entry["name"]: entry for entry in report["findings"]}["user namespaces"]
    assert found["status"] == "problem"
    assert "EPERM: a seccomp filter refuses them" in found["text"]
    assert "seccomp=unconfined" in found["remedy"]


def test_a_masked_proc(runrootless: Runrootless) -> None:
    done = inside(
        runrootless,
        "mount -t tmpfs none /proc/fs",
        "doctor",
        "--json",
        unshare="-rmpf --mount-proc",
    ).check()
    found = findings(done)["/proc"]
    assert found["status"] == "problem"
    assert "/proc/fs" in found["text"]
    assert "systempaths=unconfined" in found["remedy"]


def test_an_old_runtime(runrootless: Runrootless) -> None:
    runtime = Path(runrootless.user.home, "runc")
    runtime.write_text("#!/bin/sh\n[ $1 = --version ] && echo 'runc version 1.0.3'\n")
    runtime.chmod(0o755)
    path = f"{runrootless.user.home}:{runrootless.user.env['PATH']}"
    found = findings(runrootless("doctor", "--json", env={"PATH": path}).check())["runc"]
    # Root is emulated with any, see test_launcher.py.
    assert (found["status"], found["text"]) == ("ok", f"1.0.3 ({runtime})")


def test_where_no_file_can_be_made(runrootless: Runrootless) -> None:
    found = findings(runrootless("doctor", "--json", cwd="/proc").check())["xattrs here"]
    assert found["status"] == "info"
    assert found["text"].startswith("not tried: no file can be made here")


def test_subordinate_ids_and_newuidmap(runrootless: Runrootless) -> None:
    found = findings(runrootless("doctor", "--json").check())
    assert found["newuidmap"]["status"] == "info"
    assert f"for {runrootless.user.account.name}; none needed" in found["subordinate IDs"]["text"]


def test_within_emulation(runrootless: Runrootless) -> None:
    args = runrootless.command("doctor", "--json")
    done = runrootless("emulate", "--", *args).check()
    assert "a listener already" in findings(done)["seccomp notify"]["text"]


CGROUP = """
umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
mkdir /sys/fs/cgroup/{name}; {delegate}
echo $$ >/sys/fs/cgroup/{name}/cgroup.procs
setpriv --reuid {uid} --regid {gid} --clear-groups env -i HOME={home} PATH=/usr/bin:/bin {command}
echo $$ >/sys/fs/cgroup/cgroup.procs; rmdir /sys/fs/cgroup/{name}
"""


@pytest.mark.skipif(not AS_ROOT, reason="delegating a cgroup takes root")
@pytest.mark.parametrize("delegated", [True, False])
def test_cgroups_of_version_2(delegated: bool, runrootless: Runrootless) -> None:
    account = runrootless.user.account
    name = f"runrootless-doctor-test-{os.getpid()}"
    script = CGROUP.format(
        name=name,
        delegate=f"chown {account.uid} /sys/fs/cgroup/{name}" if delegated else "",
        uid=account.uid,
        gid=account.gid,
        home=runrootless.user.home,
        command=shlex.join(runrootless.command("doctor", "--json")),
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        cwd=runrootless.user.home,
        capture_output=True,
        text=True,
    )
    report = json.loads(done.stdout)
    found = next(found for found in report["findings"] if found["name"] == "cgroups")
    assert found["status"] == ("ok" if delegated else "info"), found
    assert found["text"].startswith("v2, delegated" if delegated else "v2, not delegated")
