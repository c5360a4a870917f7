"""Containers on machines with control groups of version 1, of version 2, and with none."""

import json
from collections.abc import Callable, Iterator

import pytest

from conftest import MakeBundle
from support.bundles import Bundle, Config
from support.containers import Runrootless
from support.namespaces import MountNamespace
from support.processes import eventually
from support.users import AS_ROOT, Account, Unprivileged

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="only root can mount control groups")

SLEEP = "sleep 1000 & while :; do sleep 0.05; done"
RESOURCES = {"memory": {"limit": 1 << 30}, "cpu": {"shares": 512}, "pids": {"limit": 500}}

In = Callable[[MountNamespace, str], Runrootless]


@pytest.fixture
def run_in(account: Account) -> Iterator[In]:
    """Runs the command in a mount namespace."""
    made: list[tuple[MountNamespace, Runrootless]] = []

    def run_in(namespace: MountNamespace, runtime: str) -> Runrootless:
        user = Unprivileged(account, namespace)
        command = Runrootless(user, ["--runtime", runtime])
        made.append((namespace, command))
        return command

    yield run_in
    for namespace, command in made:
        command.assert_nothing_left()
        command.user.close()
        namespace.close()


def limited(bundle: Bundle) -> Bundle:
    """Let a bundle have what rootless containers seldom can: limits and a cgroup's path."""

    def change(config: Config) -> None:
        config["linux"]["resources"].update(RESOURCES)
        config["linux"]["cgroupsPath"] = "/somewhere/of/its/own"

    return bundle.change(change)


@pytest.mark.parametrize(
    ("layout", "runtime"),
    # crun refuses cgroups of version 1, also by itself.
    [("v1", "runc"), ("v2", "runc"), ("v2", "crun")],
)
def test_no_cgroup_of_ones_own(layout: str, runtime: str, bundle: MakeBundle, run_in: In) -> None:
    """Then limits are dropped, and --debug says so."""
    try:
        namespace = MountNamespace(layout)
    except RuntimeError as error:
        pytest.skip(str(error))
    runrootless = run_in(namespace, runtime)
    ours = limited(bundle().script("stat -c %G /etc/shadow"))
    done = runrootless("--debug", "run", "--bundle", ours.path, runrootless.new_id()).check()
    assert done.stdout == "shadow\n"
    for name in RESOURCES:
        assert done.stderr.count(f"dropped linux.resources.{name}: ") == 1
    assert done.stderr.count("dropped linux.cgroupsPath /somewhere/of/its/own: ") == 1
    assert "dropped" not in runrootless.run(ours).check().stderr


def test_no_cgroups_at_all(bundle: MakeBundle, run_in: In) -> None:
    """runc refuses that, also by itself."""
    runrootless = run_in(MountNamespace("none"), "runc")
    done = runrootless.run(bundle().script("exit 0"))
    assert done.returncode == 1
    assert done.stderr.count("no cgroup mount found in mountinfo") == 1


def processes_listed(output: str) -> int:
    return len(json.loads(output))


def test_a_cgroup_of_ones_own(bundle: MakeBundle, run_in: In, account: Account) -> None:
    """As systemd delegates one: containers can be frozen, and their processes listed."""
    namespace = MountNamespace("v2", (account.uid, account.gid))
    runrootless = run_in(namespace, "runc")
    name = runrootless.new_id()
    ours = bundle().script(SLEEP)
    runrootless("run", "--detach", "--bundle", ours.path, name).check()
    assert namespace.cgroups() == [name]
    eventually(
        lambda: processes_listed(runrootless("ps", "--format", "json", name).check().stdout) >= 2,
        "the processes of the container",
    )

    def status() -> str:
        return str(json.loads(runrootless("state", name).check().stdout)["status"])

    runrootless("pause", name).check()
    assert status() == "paused"
    refused = runrootless("exec", "--user", "33:33", name, "true")
    assert refused.returncode == 255
    assert "paused container" in refused.stderr
    runrootless("resume", name).check()
    assert status() == "running"
    exec_ = runrootless("exec", "--user", "33:33", name, "stat", "-c", "%G", "/etc/shadow")
    assert exec_.check().stdout == "shadow\n"
    stats = json.loads(runrootless("events", "--stats", name).check().stdout)
    assert stats["id"] == name
    runrootless("kill", "--all", name, "KILL").check()
    eventually(lambda: status() == "stopped", "the end of all processes")
    runrootless("delete", name).check()
    assert namespace.cgroups() == []
