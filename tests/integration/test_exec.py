"""Further processes in a container: who they are, and what else the flags of exec say."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import MakeBundle, both_runtimes
from support.containers import Runrootless
from support.processes import Result

pytestmark = both_runtimes

SLEEP = "while :; do sleep 0.05; done"


class Container:
    """A running container."""

    def __init__(self, runrootless: Runrootless, name: str) -> None:
        self.runrootless = runrootless
        self.name = name

    def exec(self, *args: str, options: tuple[str, ...] = ()) -> Result:
        return self.runrootless("exec", *options, self.name, *args)

    def says(self, *args: str, options: tuple[str, ...] = ()) -> str:
        return self.exec(*args, options=options).check().stdout


@pytest.fixture
def container(bundle: MakeBundle, runrootless: Runrootless) -> Iterator[Container]:
    name = runrootless.new_id()
    ours = bundle().script(SLEEP).set(env={"FROM": "bundle"}, user=(5, 60, [7]))
    runrootless("run", "--detach", "--bundle", ours.path, name).check()
    yield Container(runrootless, name)
    runrootless("delete", "--force", name).check()


def test_the_flags(container: Container) -> None:
    # The user of the bundle, where none is asked for.
    assert container.says("id") == "uid=5(games) gid=60(games) groups=60(games),7(lp)\n"
    for options, expected in (
        (("--user", "www-data"), "33 33 33 /var/www"),
        (("--user", "www-data:mail"), "33 8 8 /var/www"),
        (("--user", "4000000000:1"), "4000000000 1 1 7 /"),
        (("-u", "0", "-g", "8", "-g", "9"), "0 60 60 7 8 9 /root"),
    ):
        script = "echo $(id -u) $(id -g) $(id -G) $HOME"
        told = container.says("sh", "-c", script, options=options).split()
        # `id -G` puts them in an order of its own.
        assert sorted(told) == sorted(expected.split()), options
    shown = container.says("env", options=("--env", "A=1", "--env", "B=2 3")).splitlines()
    assert {"A=1", "B=2 3", "FROM=bundle"} <= set(shown)
    assert container.says("pwd", options=("--cwd", "/var/lib")) == "/var/lib\n"


def test_capabilities(container: Container) -> None:
    script = ("grep", "CapBnd", "/proc/self/status")
    before = int(container.says(*script).split()[1], 16)
    options = ("--user", "0:0", "--cap", "CAP_SYS_ADMIN")
    after = int(container.says(*script, options=options).split()[1], 16)
    assert after == before | 1 << 21


def test_a_process_file(container: Container) -> None:
    path = os.path.join(container.runrootless.user.home, "process.json")
    process: dict[str, Any] = {
        "args": ["sh", "-c", "id; pwd; echo $A; stat -c %G /etc/shadow; chown 1 /etc/shadow"],
        "cwd": "/usr/lib",
        "env": ["A=b", "PATH=/usr/bin:/bin"],
        "user": {"uid": 33, "gid": 33, "additionalGids": [42]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 1 << 40}],
    }
    with open(path, "w") as file:
        json.dump(process, file)
    done = container.exec(options=("--process", path))
    # A container's user that is not root may not give root's files away.
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr
    assert done.stdout.splitlines() == [
        "uid=33(www-data) gid=33(www-data) groups=33(www-data),42(shadow)",
        "/usr/lib",
        "b",
        "shadow",
    ]
    with open(path, "w") as file:
        file.write("{")
    broken = container.exec(options=("--process", path))
    assert broken.returncode == 255
    assert f"{path} is not valid JSON" in broken.stderr


def test_an_unknown_user(container: Container) -> None:
    done = container.exec("id", options=("--user", "nosuch"))
    assert (done.returncode, done.stdout) == (255, "")
    assert "no user 'nosuch'" in done.stderr


def test_in_the_background(container: Container) -> None:
    """The process goes on when exec has returned, and with it the emulation."""
    pid_file = os.path.join(container.runrootless.user.home, "pid")
    script = "while :; do stat -c %G /etc/shadow >/dev/shm/seen; sleep 0.05; done"
    options = ("--detach", "--pid-file", pid_file, "--user", "33:33")
    container.exec("sh", "-c", script, options=options).check()
    with open(pid_file) as file:
        assert os.path.exists(f"/proc/{int(file.read())}")
    container.says("rm", "-f", "/dev/shm/seen")
    # It is empty each time before it is written.
    script = 'until read -r seen </dev/shm/seen; do sleep 0.01; done; echo "$seen"'
    assert container.says("timeout", "60", "sh", "-c", script) == "shadow\n"


def test_a_spec_works_as_it_is(trees_bundle: str, runrootless: Runrootless) -> None:
    """What ``spec`` writes into a directory with a rootfs: a shell at a terminal."""
    runrootless("spec", cwd=trees_bundle).check()
    terminal = runrootless.user.terminal(
        runrootless.command("run", "--bundle", trees_bundle, runrootless.new_id())
    )
    terminal.expect("# ")
    terminal.send("stat -c =%G= /etc/shadow; exit 6\n")
    terminal.expect("=shadow=")
    assert terminal.wait() == 6
    terminal.close()


@pytest.fixture
def trees_bundle(bundle: MakeBundle) -> str:
    """A directory with a root file system and no configuration."""
    ours = bundle()
    os.unlink(ours.config_path)
    os.symlink(ours.rootfs, os.path.join(ours.path, "rootfs"))
    return ours.path
