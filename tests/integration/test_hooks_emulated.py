"""Hooks that the container's first process executes are emulated as it is: with runc."""

import os

import pytest
from test_hooks import log, only_start_container

from conftest import MakeBundle
from support.containers import Runrootless
from support.processes import eventually

__all__ = ["log"]


@pytest.mark.parametrize("command", ["run", "create"])
@pytest.mark.parametrize("count", [1, 3, 32])
def test_hooks_in_the_container_are_emulated(
    command: str, count: int, bundle: MakeBundle, runrootless: Runrootless, log: str
) -> None:
    """Each of them, and all that comes after them, the descriptors of the launchers closed."""
    script = (
        'cat >/dev/null; exec >>"$1/log"; stat -c %U:%G /etc/shadow; echo "$0" $A;'
        ' ls /proc/self/fd; touch "$1/f" && chown 5:6 "$1/f" && stat -c %u:%g "$1/f"'
    )
    ours = only_start_container(
        bundle().script(f"stat -c %u:%g {log}/f; ls /proc/self/fd"), log, *([script] * count)
    )
    if command == "run":
        out = runrootless.run(ours).check().stdout
    else:
        name = runrootless.new_id()
        path = os.path.join(runrootless.user.home, "output")
        with open(path, "w") as file:
            words = runrootless.command("create", "--bundle", ours.path, name)
            process = runrootless.user.start(words, stdout=file.fileno(), stderr=file.fileno())
            assert process.wait(60) == 0
        runrootless("start", name).check()
        eventually(lambda: '"stopped"' in runrootless("state", name).stdout, "its end")
        runrootless("delete", name).check()
        with open(path) as file:
            out = file.read()
    # 3 is the directory itself.
    assert out.split() == ["5:6", "0", "1", "2", "3"]
    with open(f"{log}/log") as file:
        assert (
            file.read().splitlines()
            == [*("root:shadow", "of-sh of-startContainer", "0", "1", "2", "3", "5:6")] * count
        )


def test_a_hook_in_the_container_is_the_process_s_user(
    bundle: MakeBundle, runrootless: Runrootless, log: str
) -> None:
    os.chmod(log, 0o777)
    script = 'cat >/dev/null; id >>"$1/log"'
    ours = only_start_container(bundle().script("id").set(user=(33, 34, [35])), log, script)
    done = runrootless.run(ours).check()
    with open(f"{log}/log") as file:
        assert file.read() == done.stdout
    assert done.stdout.startswith("uid=33(www-data) gid=34(backup) groups=34(backup),35")


def test_too_many_hooks_in_the_container(
    bundle: MakeBundle, runrootless: Runrootless, log: str
) -> None:
    ours = only_start_container(bundle().script("echo it runs"), log, *([":"] * 33))
    done = runrootless.run(ours)
    assert (done.returncode, done.stdout) == (1, "")
    assert "hooks.startContainer has 33 entries" in done.stderr
