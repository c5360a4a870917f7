"""How the command begins: what stands before its interpreter, and what that makes of SIGINT."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import MakeBundle
from support.bundles import make_rootless
from support.containers import COMMAND, Runrootless
from support.users import Unprivileged

SCRIPT = f"{COMMAND}-python"
# Far more than it takes to begin, as long as there is a processor.
LONGEST = 0.04
INTERRUPTS = int(os.environ.get("RUNROOTLESS_TEST_INTERRUPTS", "200"))


def masks(status: str) -> tuple[int, int]:
    """Return whether SIGINT is blocked and ignored, by the text of a /proc/PID/status."""
    found = dict(re.findall(r"^(SigBlk|SigIgn):\t([0-9a-f]+)$", status, re.M))
    bit = 1 << (signal.SIGINT - 1)
    return int(found["SigBlk"], 16) & bit, int(found["SigIgn"], 16) & bit


def test_an_interrupt_at_any_moment_just_ends_it(unprivileged: Unprivileged) -> None:
    moments = random.Random(13)
    ends = set()
    for _ in range(INTERRUPTS):
        process = unprivileged.start([COMMAND, "--help"])
        moment = moments.uniform(0, LONGEST)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert err == "", f"after {moment * 1000:.1f} ms"
        assert process.returncode == -signal.SIGINT or "USAGE" in out.upper()
        ends.add(process.returncode)
    assert -signal.SIGINT in ends
    assert ends <= {0, -signal.SIGINT}


def block() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))


def ignore() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def block_and_ignore() -> None:
    block()
    ignore()


# No shell: dash unblocks all signals.
STATUS = """#!/usr/bin/python3 -IS
import os
print(open("/proc/self/status").read(), os.environ.get("RUNROOTLESS_COMMAND"))
"""


@pytest.mark.parametrize("before", [None, block, ignore, block_and_ignore])
@pytest.mark.parametrize("program", [COMMAND, SCRIPT])
def test_the_caller_decides_about_it(
    before: Callable[[], None] | None, program: str, unprivileged: Unprivileged
) -> None:
    path = Path(unprivileged.home, "runc")
    path.write_text(STATUS)
    path.chmod(0o755)
    by_itself = unprivileged.start([str(path)], before=before).communicate(timeout=60)[0]
    process = unprivileged.start([program, "--runtime", str(path), "version-of"], before=before)
    out, err = process.communicate(timeout=60)
    assert err == ""
    assert masks(out) == masks(by_itself)
    is_blocked, is_ignored = (bool(bit) for bit in masks(out))
    assert (is_blocked, is_ignored) == {
        None: (False, False),
        block: (True, False),
        ignore: (False, True),
        block_and_ignore: (True, True),
    }[before]
    assert out.endswith("\n None\n"), "the variable has been taken out"


@pytest.mark.parametrize("before", [None, block, ignore])
def test_a_container_has_what_the_runtime_gives_it(
    before: Callable[[], None] | None, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    ours = bundle().set(args=["cat", "/proc/self/status"])
    command = runrootless.command("run", "--bundle", ours.path, runrootless.new_id())
    user = runrootless.user
    out, err = user.start(command, before=before).communicate(timeout=60)
    assert err == ""
    # runc sets all signals back; which it does with this one is its own affair.
    plain = bundle().set(args=["cat", "/proc/self/status"])
    plain.change(lambda config: make_rootless(config, user.account.uid, user.account.gid))
    root = os.path.join(user.runtime_dir, "by-itself")
    command = ["runc", f"--root={root}", "run", "--bundle", plain.path, "plain"]
    by_itself, err = user.start(command, before=before).communicate(timeout=60)
    assert err == ""
    assert masks(out) == masks(by_itself)


TELL = """
import os, sys
with open("/proc/self/comm") as file:
    print(sys.argv, file.read().strip(), os.getpid(), os.environ.get("RUNROOTLESS_COMMAND"))
"""


@pytest.fixture
def copy(unprivileged: Unprivileged) -> str:
    """The command in another directory, with a module that tells how it was called."""
    place = os.path.join(unprivileged.session, "place")
    os.makedirs(f"{place}/bin")
    os.makedirs(f"{place}/modules/runrootless")
    shutil.copy2(COMMAND, f"{place}/bin/runrootless")
    text = Path(SCRIPT).read_text()
    Path(f"{place}/bin/runrootless-python").write_text(
        text.replace(
            "import gc", f"import sys; sys.path.insert(0, {place + '/modules'!r})\nimport gc", 1
        )
    )
    os.chmod(f"{place}/bin/runrootless-python", 0o755)
    for name, content in (
        ("__init__", ""),
        ("quick_import", "def install(): pass"),
        ("cli", f"def run():\n exec({TELL!r})"),
    ):
        Path(f"{place}/modules/runrootless/{name}.py").write_text(content)
    return place


def test_how_it_is_called(copy: str, unprivileged: Unprivileged) -> None:
    command = f"{copy}/bin/runrootless"
    link = f"{copy}/runc"
    os.symlink("bin/runrootless", link)
    second = f"{copy}/second"
    os.symlink(link, second)
    for program, name in (
        (command, command),
        (link, link),
        (second, second),
        ("../place/bin/runrootless", "../place/bin/runrootless"),
    ):
        arguments = ["a b", "", "-x=\udcff", "$"]
        process = unprivileged.start([program, *arguments], cwd=copy)
        out, err = process.communicate(timeout=60)
        assert err == ""
        expected = [name, *arguments]
        assert out == f"{expected} runrootless {process.pid} None\n"


def test_many_arguments_and_variables(copy: str, unprivileged: Unprivileged) -> None:
    arguments = [str(number) for number in range(2000)]
    env = {f"V{number}": "x" * 20 for number in range(2000)}
    process = unprivileged.start([f"{copy}/bin/runrootless", *arguments], env=env)
    out, err = process.communicate(timeout=60)
    assert err == ""
    assert out.startswith(str([f"{copy}/bin/runrootless", *arguments]))


def test_without_its_script(copy: str, unprivileged: Unprivileged) -> None:
    script = f"{copy}/bin/runrootless-python"
    os.chmod(script, 0o644)
    done = unprivileged.run([f"{copy}/bin/runrootless"])
    assert (done.returncode, done.stderr) == (126, f"runrootless: cannot execute {script}\n")
    os.unlink(script)
    done = unprivileged.run([f"{copy}/bin/runrootless"])
    assert done.returncode == 127
    assert done.stderr.startswith(f"runrootless: cannot execute {script}, ")
    assert len(done.stderr.splitlines()) == 1


def test_the_script_is_for_this_interpreter() -> None:
    assert Path(SCRIPT).read_text().splitlines()[0] == f"#!{sys.executable}"
    assert Path(COMMAND).read_bytes()[:4] == b"\x7fELF"
