"""The standard streams and the terminal of a container's first process, and of others.

A runtime gives them to the user of the process: with real root's runc 1.1.5 that is the user
ID alone, and what is /dev/null is left as it is.
"""

import os
import subprocess
from collections.abc import Iterator

import pytest

from conftest import MakeBundle, both_runtimes
from support.bundles import Bundle
from support.containers import Runrootless
from support.processes import Terminal

pytestmark = pytest.mark.parametrize("engine", ["notify", "thorough"])

USERS = [(0, 0, []), (1000, 1001, []), (33, 33, [4])]
STREAMS = ("stdin", "stdout", "stderr")
SHOW = " ".join(f"/dev/{name}" for name in STREAMS)
OPEN = """
    for name in stdin stdout stderr; do
        for path in /dev/$name /proc/self/fd/${n:=0} /proc/$$/fd/$n; do
            : <$path && : >>$path && echo "$path by $(id -u)"
        done
        n=$((n + 1))
    done
"""


@pytest.fixture
def ours(runrootless: Runrootless, engine: str) -> Runrootless:
    """The command with an engine. What it ends with is looked at by another one."""
    return Runrootless(runrootless.user, [*runrootless.options, "--engine", engine])


def in_pipes(ours: Runrootless, bundle: Bundle, script: str) -> str:
    """Run a container whose streams are pipes of the caller's; return what it prints."""
    command = ours.command("run", "--bundle", bundle.script(script).path, ours.new_id())
    shell = ["sh", "-c", 'echo typed | "$@" 2>&1 | cat', "sh", *command]
    return ours.user.run(shell).check().stdout


@both_runtimes
@pytest.mark.parametrize("user", USERS, ids=str)
def test_pipes_are_the_users(
    bundle: MakeBundle, ours: Runrootless, user: tuple[int, int, list[int]]
) -> None:
    made = bundle().set(user=user)
    printed = in_pipes(ours, made, f"stat -Lc '%u %a %F' {SHOW}; cat /dev/stdin")
    assert printed.splitlines() == [f"{user[0]} 600 fifo"] * 3 + ["typed"]


def test_pipes_keep_their_group(bundle: MakeBundle, ours: Runrootless) -> None:
    printed = in_pipes(ours, bundle().set(user=(1000, 1001, [])), f"stat -Lc %u:%g {SHOW}")
    assert printed.splitlines() == ["1000:0"] * 3


@both_runtimes
@pytest.mark.parametrize("user", USERS, ids=str)
def test_pipes_can_be_opened(
    bundle: MakeBundle, ours: Runrootless, user: tuple[int, int, list[int]]
) -> None:
    printed = in_pipes(ours, bundle().set(user=user), f"sleep 0; {OPEN}")
    assert len(printed.splitlines()) == 9, printed
    assert all(line.endswith(f" by {user[0]}") for line in printed.splitlines())


def test_files_are_the_users_inside_alone(bundle: MakeBundle, ours: Runrootless) -> None:
    """As where a shell redirects: runc would give the files away."""
    session = os.path.join(ours.user.home, "streams")
    script = f"stat -Lc %u {SHOW}; echo more >>/dev/stdout; echo x >/dev/stderr; cat /dev/stdin"
    made = bundle().script(script).set(user=(1000, 1001, []))
    name = ours.new_id()
    # Of a container in the background the streams are the caller's own.
    command = ours.command("run", "--detach", "--bundle", made.path, name)
    redirect = 'umask 077; mkdir "$0" && cd "$0" && echo in >in && "$@" <in >>out 2>>err'
    ours.user.run(["sh", "-c", redirect, session, *command]).check()
    follow = 'until [ "$(tail -n 1 "$0/out")" = in ]; do sleep 0.05; done; cat "$0/out" "$0/err"'
    shown = ours.user.run(["sh", "-c", follow, session]).check()
    ours("delete", "--force", name).check()
    assert shown.stdout.split() == ["1000"] * 3 + ["more", "in", "x"]
    outside = subprocess.run(
        ["getfattr", "-d", "-m", "-", *(f"{session}/{name}" for name in ("in", "out", "err"))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "rootless" not in outside.stdout
    assert os.stat(f"{session}/out").st_uid == ours.user.account.uid


def test_null_stays_roots(bundle: MakeBundle, ours: Runrootless) -> None:
    made = bundle().script(f"stat -Lc %u {SHOW} /dev/null").set(user=(1000, 1000, []))
    command = ours.command("run", "--bundle", made.path, ours.new_id())
    done = ours.user.run(["sh", "-c", '"$@" </dev/null 2>/dev/null', "sh", *command]).check()
    # Without --detach runc 1.1 has a pipe of its own in the place of each.
    assert done.stdout.split()[-1] == "0"


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    terminals: list[Terminal] = []
    yield terminals
    for terminal in terminals:
        terminal.close()


@pytest.mark.parametrize("user", USERS, ids=str)
def test_the_terminal_is_the_users(
    bundle: MakeBundle,
    ours: Runrootless,
    terminals: list[Terminal],
    user: tuple[int, int, list[int]],
) -> None:
    script = """
        stat -c '%u:%g %a %n' $(tty) /dev/console
        : <$(tty) && : >$(tty) && : </dev/tty && : >/dev/stdout && : </dev/stdin && echo opened
        mesg n; stat -c '%u:%g %a' $(tty); echo the end
    """
    made = bundle().script(script).set(user=user, terminal=True)
    terminal = ours.terminal(made)
    terminals.append(terminal)
    terminal.expect("the end")
    assert terminal.wait() == 0
    assert terminal.output.split("\r\n")[:4] == [
        f"{user[0]}:5 620 /dev/pts/0",
        f"{user[0]}:5 620 /dev/console",
        "opened",
        f"{user[0]}:5 600",
    ]


def test_a_bundle_without_a_group_of_terminals(
    bundle: MakeBundle, ours: Runrootless, terminals: list[Terminal]
) -> None:
    made = bundle().script("stat -c %u:%g $(tty); echo the end").set(user=(7, 8, []), terminal=True)
    made.change(
        lambda config: [
            mount["options"].remove("gid=5")
            for mount in config["mounts"]
            if mount["type"] == "devpts"
        ]
    )
    terminal = ours.terminal(made)
    terminals.append(terminal)
    terminal.expect("the end")
    terminal.wait()
    # Of the runtime's own group, to whom the new terminal belonged.
    assert terminal.output.splitlines()[0] == "7:0"
