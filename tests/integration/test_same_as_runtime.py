"""What the runtime says and does by itself, and what it says and does called by runrootless.

By itself it runs an equivalent rootless bundle, as the same user. Each step is done on
both sides; exit codes and outputs must be the same but for process IDs, times and paths.
"""

import json
import os
import re
from collections.abc import Callable, Sequence

import pytest

from conftest import MakeBundle, both_runtimes
from support.bundles import Bundle, make_rootless
from support.containers import Runrootless
from support.processes import Result, eventually
from support.users import Unprivileged

pytestmark = both_runtimes

INIT = "trap 'exit 3' TERM; while :; do sleep 0.05; done"

# Words of one step: a container called "c", and no container called "nosuch".
CREATED = """
    state c
    list
    list -f json
    list -q
    ps c
    delete nosuch
    create --bundle BUNDLE --pid-file PIDFILE
    start c
"""
RUNNING = """
    state c
    list
    list --format=json
    list -q
    list -f nosuch
    start c
    ps c
    ps -f json c
    pause c
    resume c
    events --stats c
    update --memory 100000000 c
    checkpoint --image-path /proc/nosuch c
    delete c
    exec c sh -c "exit 7"
    exec c sh -c "kill -9 $$"
    exec c nosuch
    exec c
    exec
    exec --cwd /tmp c pwd
    exec --cwd /nosuch c pwd
    exec --cwd tmp c pwd
    exec --bogus c env
    exec -d --pid-file PIDFILE c sleep 0.1
    exec -d -t c tty
    exec --console-socket /nosuch c true
    exec --console-socket /nosuch -d -t c true
    exec --preserve-fds 3 c true
    exec --additional-gids x c id
    exec nosuch true
    kill c BOGUS
    kill c 0
    kill c WINCH
    kill --all c WINCH
    kill nosuch
    kill
    state nosuch
    state
    state c d
    delete --force nosuch
    delete
    start nosuch
    start
    pause nosuch
    resume nosuch
    ps nosuch
    update nosuch
    events nosuch
    checkpoint nosuch
    run
    run a b
    bogus
    features
    delete --help
    kill --help
    --root /proc/nosuch list
    --log /proc/nosuch/log list
    kill c KILL
"""
STOPPED = """
    state c
    list
    exec c true
    start c
    kill c TERM
    delete c
    delete c
    list
"""
# Where crun does not take the flags, or prints now this and now that.
NOT_OF_CRUN = ("exec -d -t", "exec --additional-gids", "checkpoint", "restore", "exec --cwd tmp")


def words(line: str) -> list[str]:
    """Split as a shell does it, for the little quoting there is above."""
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', line)]


class Side:
    """The runtime by itself or runrootless, with the bundle that each can run."""

    def __init__(
        self, command: Sequence[str], user: Unprivileged, bundle: Bundle, root: str
    ) -> None:
        self.command = command
        self.user = user
        self.bundle = bundle
        self.root = root
        self.pid_file = os.path.join(user.home, f"pid-{os.path.basename(bundle.path)}")

    def run(self, step: str) -> Result:
        args = [
            {"BUNDLE": self.bundle.path, "PIDFILE": self.pid_file}.get(word, word)
            for word in words(step)
        ]
        return self.user.run([*self.command, *args])

    def status_is(self, status: str) -> Callable[[], bool]:
        return lambda: json.loads(self.run("state c").stdout)["status"] == status

    def say(self, step: str) -> str:
        """Return the step's exit code and output, without what is never the same."""
        done = self.run(step)
        text = f"exit code {done.returncode}\n{done.stdout}\n--- stderr\n{done.stderr}"
        if step.startswith("list") and "BUNDLE" in text:
            # The widths of columns follow the widths of what is replaced.
            text = re.sub(" {2,}", "  ", text)
        for pattern, replacement in (
            (re.escape(self.bundle.path), "BUNDLE"),
            (re.escape(self.root), "ROOT"),
            (re.escape(self.pid_file), "PIDFILE"),
            (r'time="[^"]*"', "time"),
            (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
            (r'"pid": ?[1-9]\d*|"init_process_start": ?\d+', '"pid": N'),
            (r"(?m)^(c +)[1-9]\d*", r"\1N"),
            (r"\(?pid=\d+", "pid=N"),
            # The launcher and its connection are two more.
            (r"(unable to stat preserved-fd \d+ \(of )\d+", r"\1N"),
        ):
            text = re.sub(pattern, replacement, text)
        return text


class Sides:
    """The runtime by itself, and runrootless, each with a container ``c``."""

    def __init__(self, runtime: str, runrootless: Runrootless, plain: Bundle, ours: Bundle) -> None:
        user = runrootless.user
        root = os.path.join(user.runtime_dir, "by-itself")
        self.plain = Side([runtime, f"--root={root}"], user, plain, root)
        root = os.path.join(user.runtime_dir, runtime)
        self.ours = Side(runrootless.command(), user, ours, root)

    def both(self, step: str) -> tuple[str, str]:
        return self.plain.say(step), self.ours.say(step)

    def await_status(self, status: str) -> None:
        for side in (self.plain, self.ours):
            eventually(side.status_is(status), f"the container is {status}")


@pytest.fixture
def sides(bundle: MakeBundle, runrootless: Runrootless, runtime: str) -> Sides:
    plain, ours = bundle().script(INIT), bundle().script(INIT)
    account = runrootless.user.account
    plain.change(lambda config: make_rootless(config, account.uid, account.gid))
    return Sides(runtime, runrootless, plain, ours)


def test_a_whole_life(sides: Sides, runtime: str) -> None:
    different = []

    def compare(steps: str) -> None:
        for step in filter(None, map(str.strip, steps.splitlines())):
            if runtime == "crun" and step.startswith(NOT_OF_CRUN):
                continue
            plain, ours = sides.both(step)
            if plain != ours:
                different.append(f"{step}\n--- by itself\n{plain}\n--- runrootless\n{ours}")

    compare("create --bundle BUNDLE --pid-file PIDFILE c")
    for side in (sides.plain, sides.ours):
        with open(side.pid_file) as file:
            assert json.loads(side.run("state c").stdout)["pid"] == int(file.read())
    compare(CREATED)
    sides.await_status("running")
    compare(RUNNING)
    sides.await_status("stopped")
    compare(STOPPED)
    assert not different, f"{len(different)} steps differ:\n\n" + "\n\n".join(different)


def test_the_bundle_is_the_users(sides: Sides, runtime: str) -> None:
    """In ``state`` and ``list``, also with a runtime directory behind a symbolic link."""
    user = sides.ours.user
    link = os.path.join(user.session, "link")
    os.symlink(user.runtime_dir, link)
    user.env["XDG_RUNTIME_DIR"] = link
    sides.ours.run("create --bundle BUNDLE c").check()
    assert json.loads(sides.ours.run("state c").stdout)["bundle"] == sides.ours.bundle.path
    (listed,) = json.loads(sides.ours.run("list -f json").stdout)
    assert listed["bundle"] == sides.ours.bundle.path
    table = sides.ours.run("list").stdout.splitlines()
    gap = "     " if runtime == "runc" else "  "
    assert f"created{gap}{sides.ours.bundle.path} " in table[1]
    if runtime == "runc":
        assert table[0].index("CREATED") == table[1].index(listed["created"][:10])
    sides.ours.run("delete --force c").check()
    user.env["XDG_RUNTIME_DIR"] = user.runtime_dir
