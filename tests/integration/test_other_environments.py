"""A container, and commands on it by callers with another environment, or another name for it.

Whoever starts a process in it gets emulation or an error.
"""

import json
import os
from collections.abc import Iterator

import pytest

from conftest import MakeBundle, both_runtimes
from support.containers import Runrootless
from support.processes import Result, eventually

pytestmark = both_runtimes

SLEEP = "while :; do sleep 0.05; done"
CHECK = ["sh", "-c", "chown 3:4 /dev/shm && stat -c %u:%g /dev/shm"]


class Container:
    """A running container whose state root is behind a symlink."""

    def __init__(self, runrootless: Runrootless, bundle: str) -> None:
        self.runrootless = runrootless
        self.bundle = bundle
        user = runrootless.user
        self.name = runrootless.new_id()
        self.root = f"{user.home}/root-{self.name}"
        self.link = f"{user.home}/link-{self.name}"
        self.other = f"{user.home}/run-{self.name}"
        for path in (self.root, self.other):
            os.mkdir(path, 0o700)
            user.give(path)
        os.symlink(self.root, self.link)
        self("run", "--detach", "--bundle", bundle, self.name, root=self.link).check()

    def __call__(self, *words: str, root: str = "", runtime_dir: str | None = None) -> Result:
        """Run a command, with that for XDG_RUNTIME_DIR."""
        env = {} if runtime_dir is None else {"XDG_RUNTIME_DIR": runtime_dir}
        return self.runrootless("--root", root or self.root, *words, env=env)

    def exec(self, **where: str) -> Result:
        return self("exec", self.name, *CHECK, **where)


@pytest.fixture
def container(bundle: MakeBundle, runrootless: Runrootless) -> Iterator[Container]:
    made = Container(runrootless, bundle().script(SLEEP).path)
    yield made
    made("delete", "--force", made.name)


def test_from_elsewhere(container: Container) -> None:
    """By cron, ssh or a unit of systemd: with no XDG_RUNTIME_DIR, or another one."""
    for root in (container.root, container.link):
        for runtime_dir in (None, "", container.other):
            where = {"root": root} if runtime_dir is None else {
                "root": root, "runtime_dir": runtime_dir
            }  # fmt: skip
            assert container.exec(**where).check().stdout == "3:4\n"
    where = {"runtime_dir": container.other}
    state = json.loads(container("state", container.name, **where).check().stdout)
    assert state["bundle"] == os.path.realpath(container.bundle)
    told = container("list", "--format", "json", **where).check().stdout
    assert [one["bundle"] for one in json.loads(told)] == [os.path.realpath(container.bundle)]
    container("kill", container.name, "KILL", **where).check()
    container("delete", "--force", container.name, **where).check()


def test_nothing_is_left_without_an_agent(bundle: MakeBundle, runrootless: Runrootless) -> None:
    """Then who deletes the container has to remove the directory."""
    zero = Runrootless(runrootless.user, [*runrootless.options, "--engine", "zero"])
    container = Container(zero, bundle().script(SLEEP).path)
    container("delete", "--force", container.name, runtime_dir=container.other).check()
    directory = f"{runrootless.user.runtime_dir}/runrootless"
    eventually(
        lambda: not any(name.startswith(f"{container.name}-") for name in os.listdir(directory)),
        "the end of the private directory",
    )


def test_without_the_private_directory(container: Container) -> None:
    """As where /run/user/UID went at the end of a session."""
    base = f"{container.runrootless.user.runtime_dir}/runrootless"
    os.rename(base, f"{base}-gone")
    try:
        done = container.exec()
    finally:
        os.rename(f"{base}-gone", base)
    assert (done.returncode, done.stdout) == (255, "")
    assert "root cannot be emulated for more processes" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "before",
    [
        ["--", "--"],
        ["--roo", "ROOT"],
        ["--roo=ROOT"],
        ["--roo", "ROOT", "--"],
        ["--", "--root=ROOT"],
    ],
)
def test_before_the_command(container: Container, before: list[str]) -> None:
    before = [word.replace("ROOT", container.root) for word in before]
    done = container(*before, "exec", container.name, "echo", "it began")
    assert done.returncode != 0
    assert "it began" not in done.stdout
    words = ["run", "--bundle", container.bundle, f"{container.name}-2"]
    assert container(*before, *words).returncode != 0
    assert f"{container.name}-2" not in container("list", "--quiet").check().stdout.split()


def test_an_id_with_a_slash(container: Container) -> None:
    name = f"../{os.path.basename(container.root)}/{container.name}"
    done = container("exec", name, *CHECK, root=container.other)
    assert (done.returncode, done.stdout) == (255, "")


def test_a_container_of_the_plain_runtime(container: Container, runtime: str) -> None:
    """It is what its maker wanted it to be."""
    user = container.runrootless.user
    bundle = f"{user.home}/plain-{container.name}"
    os.mkdir(bundle, 0o755)
    user.give(bundle)
    user.run(["runc", "spec", "--rootless", "--bundle", bundle]).check()
    with open(f"{container.bundle}/config.json") as file:
        rootfs = os.path.join(container.bundle, json.load(file)["root"]["path"])
    with open(f"{bundle}/config.json") as file:
        spec = json.load(file)
    spec["root"] = {"path": rootfs, "readonly": True}
    spec["process"].update(terminal=False, args=["sh", "-c", SLEEP])
    with open(f"{bundle}/config.json", "w") as file:
        json.dump(spec, file)
    plain = [runtime, "--root", container.root]
    user.run([*plain, "run", "--detach", "--bundle", bundle, "plain"]).check()
    try:
        done = container("--debug", "exec", "plain", "sh", "-c", "grep Seccomp: /proc/self/status")
    finally:
        user.run([*plain, "delete", "--force", "plain"]).check()
    assert done.check().stdout.split() == ["Seccomp:", "0"]
    assert "plain was not started by runrootless: nothing is emulated in it" in done.stderr
