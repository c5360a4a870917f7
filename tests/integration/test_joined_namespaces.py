"""Containers that join namespaces of others, as those of a pod do."""

import json
import os
import re
from collections.abc import Sequence

import pytest

from conftest import MakeBundle, both_runtimes
from support.bundles import Bundle, Config, make_rootless
from support.containers import Runrootless
from support.users import AS_ROOT

pytestmark = both_runtimes

TYPES = {"net": "network", "mnt": "mount"}
LOOK = "for n in %s; do readlink /proc/self/ns/$n; done"


def joining(bundle: Bundle, pid: int, names: Sequence[str]) -> Bundle:
    """Let a container join these namespaces of a process, as they are called in /proc."""

    def change(config: Config) -> None:
        linux = config["linux"]
        types = {name: TYPES.get(name, name) for name in names}
        linux["namespaces"] = [
            *(one for one in linux["namespaces"] if one["type"] not in types.values()),
            *({"type": types[name], "path": f"/proc/{pid}/ns/{name}"} for name in names),
        ]
        if "uts" in names:
            del config["hostname"]

    return bundle.change(change)


def pid_of(runrootless: Runrootless, name: str) -> int:
    return int(json.loads(runrootless("state", name).check().stdout)["pid"])


def namespaces_of(pid: int, names: Sequence[str]) -> list[str]:
    return [os.readlink(f"/proc/{pid}/ns/{name}") for name in names]


def test_namespaces_of_another_container(
    bundle: MakeBundle, runrootless: Runrootless, runtime: str
) -> None:
    if not AS_ROOT:
        pytest.skip("only root and the user itself may look at these: run the tests as root")
    first = bundle().script("exec sleep 1000")
    runrootless("run", "--network", "none", "--detach", "--bundle", first.path, "first").check()
    pid = pid_of(runrootless, "first")
    for names in (
        ("user", "pid", "ipc", "uts", "net"),
        ("pid", "ipc"),
        ("net",),
        ("uts", "user"),
    ):
        ours = joining(bundle().script(LOOK % " ".join(("user", *names))), pid, names)
        done = runrootless.run(ours).check()
        assert done.stdout.split() == namespaces_of(pid, ("user", *names))
    # Who they are is the same to each other, and both can be entered.
    ours = joining(bundle().script("exec sleep 1000"), pid, ("pid", "net"))
    ours.set(user=(33, 34, [35, 36]))
    runrootless("run", "--detach", "--bundle", ours.path, "second").check()
    second = pid_of(runrootless, "second")
    with open(f"/proc/{second}/status") as file:
        status = file.read()
    found = re.search(r"^NSpid:.*\t(\d+)$", status, re.MULTILINE)
    assert found
    script = f"stat -c %u:%g /proc/{found[1]}; grep ^Groups: /proc/{found[1]}/status"
    for name in ("first", "second"):
        done = runrootless("exec", name, "sh", "-c", script).check()
        assert done.stdout.split() == ["33:34", "Groups:", "35", "36"]
    done = runrootless("exec", "--user", "1:2", "second", "id").check()
    assert done.stdout.startswith("uid=1(daemon) gid=2(bin)")
    if runtime == "runc":
        # The namespace of processes ends with its first one.
        runrootless("delete", "--force", "second").check()
    runrootless("delete", "--force", "first").check()
    runrootless("delete", "--force", "second")


def test_a_container_outlives_that_whose_network_it_has(
    bundle: MakeBundle, runrootless: Runrootless, runtime: str
) -> None:
    first = bundle().script("exec sleep 1000")
    runrootless("run", "--network", "none", "--detach", "--bundle", first.path, "first").check()
    ours = joining(bundle().script("exec sleep 1000"), pid_of(runrootless, "first"), ("net",))
    runrootless("run", "--detach", "--bundle", ours.path, "second").check()
    runrootless("delete", "--force", "first").check()
    script = (
        "touch /tmp/x && chown 5:6 /tmp/x && stat -c %u:%g /tmp/x; rm /tmp/x; ls /sys >/dev/null"
    )
    assert runrootless("exec", "second", "sh", "-c", script).check().stdout == "5:6\n"
    runrootless("delete", "--force", "second").check()


def test_what_is_of_no_container_of_ours_is_one_line(
    bundle: MakeBundle, runrootless: Runrootless, runtime: str
) -> None:
    user = runrootless.user
    foreign = bundle().script("exec sleep 1000")
    foreign.change(lambda config: make_rootless(config, user.account.uid, user.account.gid))
    by_itself = [runtime, f"--root={user.runtime_dir}/by-itself"]
    user.run([*by_itself, "run", "--detach", "--bundle", foreign.path, "foreign"]).check()
    pid = json.loads(user.run([*by_itself, "state", "foreign"]).check().stdout)["pid"]
    try:
        for names in (("user",), ("pid", "ipc"), ("user", "pid", "ipc", "uts")):
            ours = joining(bundle().script("echo it runs"), pid, names)
            done = runrootless.run(ours)
            assert (done.returncode, done.stdout) == (1, "")
            assert f"/proc/{pid}/ns/{names[0]} is not of a running container" in done.stderr
            assert len(done.stderr.splitlines()) == 1
    finally:
        user.run([*by_itself, "delete", "--force", "foreign"]).check()


KINDS = ("user", "pid", "ipc", "uts", "net", "mnt", "cgroup")


@pytest.mark.parametrize("name", KINDS)
def test_what_cannot_be_looked_at_is_one_line(
    name: str, bundle: MakeBundle, runrootless: Runrootless, runtime: str
) -> None:
    other = "ipc" if name == "uts" else "uts"
    for path, reason in (
        # Of the host's root, into which a user may not even look.
        (f"/proc/1/ns/{name}", "Permission denied"),
        ("/no/such/file", "No such file or directory"),
        ("/etc/passwd", "it is not a namespace"),
        ("/proc/self", "it is not a namespace"),
        (f"/proc/self/ns/{other}", "it is of another type"),
    ):
        if not AS_ROOT and path.startswith("/proc/1/"):
            # It may be the user's own.
            continue
        ours = joining(bundle().script("echo it runs"), 1, (name,))
        ours.change(
            lambda config, path=path: config["linux"]["namespaces"][-1].update(path=path)  # type: ignore[misc]
        )
        done = runrootless.run(ours)
        assert (done.returncode, done.stdout) == (1, "")
        kind = TYPES.get(name, name)
        (line,) = done.stderr.splitlines()
        assert f"linux.namespaces: cannot join the {kind} namespace {path}: {reason}" in line


def test_a_mount_namespace_is_refused_in_one_line(
    bundle: MakeBundle, runrootless: Runrootless, runtime: str
) -> None:
    first = bundle().script("exec sleep 1000")
    runrootless("run", "--detach", "--bundle", first.path, "first").check()
    for process in (str(pid_of(runrootless, "first")), "self"):
        path = f"/proc/{process}/ns/mnt"
        ours = joining(bundle().script("echo it runs"), 1, ("mnt",))
        ours.change(
            lambda config, path=path: config["linux"]["namespaces"][-1].update(path=path)  # type: ignore[misc]
        )
        done = runrootless.run(ours)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert f"cannot join the mount namespace {path}: the bundle's root file system" in line
    runrootless("delete", "--force", "first").check()


def test_what_is_the_callers_own_is_kept(
    bundle: MakeBundle, runrootless: Runrootless, runtime: str
) -> None:
    ours = joining(bundle().script("readlink /proc/self/ns/net"), os.getpid(), ("net",))
    ours.change(lambda config: config["linux"]["namespaces"][-1].update(path="/proc/self/ns/net"))
    assert runrootless.run(ours).check().stdout.strip() == os.readlink("/proc/self/ns/net")
