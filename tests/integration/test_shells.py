"""Shells, whose children end while they make calls that wait for the agent.

Each script of the directory ``shells`` is run by each shell, by the real root in a plain chroot
and in a container of a user without privileges; every line must be the same.
``RUNROOTLESS_TEST_JOBS`` is a number of background jobs, for long runs by hand: 3000.
"""

import os
import re
import shlex
from pathlib import Path

import pytest

from conftest import TALLY
from support.containers import Runrootless
from support.oracle import Case, Container, Differential, RealRoot
from support.trees import Trees, debian_archive
from support.users import AS_ROOT, Unprivileged

# Not of every shell what every script is about: mksh forgets the ends of some jobs among
# many, and others than these two wait for ever if job control is in a script.
SHELLS = {
    "children": ("dash", "bash", "ksh93", "zsh"),
    "ending_children": ("dash", "bash", "ksh93", "mksh", "zsh"),
    "files": ("dash", "bash", "ksh93", "mksh", "zsh"),
    "job_control": ("dash", "bash"),
    "many_jobs": ("dash", "bash", "ksh93", "zsh"),
    "traps": ("dash", "bash", "ksh93", "mksh", "zsh"),
}

# Their handlers of SIGCHLD let calls fail that it interrupts (no SA_RESTART), and they do not
# repeat all calls. In these scripts children end while they make some. Then they say so.
WITHOUT_RESTART = ("dash", "ksh93", "mksh")
DURING_CALLS = ("ending_children", "files", "many_jobs")
LIMIT = "EINTR before the agent has received a call: docs/limits.md"
INTERRUPTED = re.compile(r" fails$|Interrupted system call", re.MULTILINE)

JOBS = int(os.environ.get("RUNROOTLESS_TEST_JOBS", "150"))
AT_A_TERMINAL = ("job_control",)

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="the oracle is a chroot of the real root")


def case(shell: str, path: Path) -> Case:
    """Return what runs a script with a shell, at a terminal where it is about that."""
    text = path.read_text()
    if shell == "zsh":
        text = "emulate sh\n" + text
    command = f"{shell} ./script"
    if path.stem in AT_A_TERMINAL:
        # What a shell says of its jobs are its own words, with their numbers.
        command = f"script -qec {shlex.quote(command + ' 2>/dev/null')} /dev/null | tr -d '\\r'"
    variables = f"export JOBS={JOBS} ROUNDS={JOBS // 3}"
    script = f"{variables}\ncat >script <<'END OF SCRIPT'\n{text}END OF SCRIPT\n{command}\n"
    limit = LIMIT if shell in WITHOUT_RESTART and path.stem in DURING_CALLS else ""
    return Case(f"{path.stem}_{shell}", "sh", script, limit, lifted=False)


DIRECTORY = Path(__file__).with_name("shells")
CASES = {
    one.name: one
    for name, shells in SHELLS.items()
    for one in (case(shell, DIRECTORY / f"{name}.sh") for shell in shells)
}


def test_every_script_is_run() -> None:
    assert sorted(path.stem for path in DIRECTORY.iterdir()) == sorted(SHELLS)


@pytest.fixture(scope="module")
def differential(
    request: pytest.FixtureRequest, trees: Trees, session_user: Unprivileged
) -> Differential:
    """Runs the scripts on both sides, in a Debian with these shells."""
    runrootless = Runrootless(session_user)
    tally = request.config.stash[TALLY]
    archive = debian_archive("shells")
    ours = Container(trees, archive, runrootless)
    return Differential(RealRoot(trees, archive), ours, tally)


@pytest.mark.parametrize("name", CASES)
def test_same_as_the_real_root(name: str, differential: Differential) -> None:
    try:
        differential.assert_same("shells", CASES, name)
    except AssertionError:
        found = differential.compare("shells", CASES, name).rootless
        # No other difference is a limit.
        if not CASES[name].limit or not INTERRUPTED.search(found):
            raise
        pytest.xfail(LIMIT)
