"""No process without an engine: what becomes of command lines that nobody here knows."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless import cli, invocation
from runrootless.command_line import runc as command_line
from runrootless.errors import Error
from runrootless.invocation import STARTS_NOTHING, Invocation
from runrootless.runtimes import Runtime

# What cli.py has prepared, so that there is an engine.
PREPARED = ("create", "exec", "run")
NAMES = st.one_of(
    st.sampled_from(("run", "create", "exec", "restore", "mono", "Run", "ru")),
    st.text("abcdefgh-._ 1", min_size=1, max_size=6).filter(lambda name: name[0] != "-"),
).filter(lambda name: name not in STARTS_NOTHING)
WORDS = st.lists(
    st.sampled_from(
        ("--", "-", "--debug", "--root=/x", "--root", "/y", "x", "run", "exec", "list")
    ),
    max_size=5,
)
MISTAKES = st.sampled_from((["--nope"], ["--roo", "/x"], ["--roo=/x"], ["-Z"], ["--bad=x", "-q"]))


def parsed(words: list[str]) -> Invocation:
    return Invocation(command_line.parse(command_line.GLOBAL, words), Runtime("/usr/bin/crun"))


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_the_commands_of_a_runtime(name: str) -> None:
    """Each that starts processes is known as such."""
    path = shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    told = subprocess.run([path, "--help"], capture_output=True, text=True, check=True).stdout
    commands = re.split(r"\n\n|GLOBAL", told.partition("COMMANDS:\n")[2])[0]
    names = set(re.findall(r"^\s+(\w+)", commands, re.MULTILINE))
    assert {*PREPARED, "start", "state"} <= names
    assert names - STARTS_NOTHING - {"restore"} == {*PREPARED}


@given(MISTAKES, WORDS, NAMES, WORDS)
def test_a_mistake_leaves_no_state_root_to_start_in(
    mistake: list[str], before: list[str], name: str, behind: list[str]
) -> None:
    """Wherever in the line the runtime finds its command."""
    made = parsed([*mistake, *before, name, *behind])
    assert made.options.error
    told = made.unchanged()[1:]
    for number, word in enumerate(told):
        if word in (name, "run", "exec", "x"):
            assert told[number - 1] == invocation._NO_ROOT
    assert [word for word in told if word != invocation._NO_ROOT] == [
        *mistake, *before, name, *behind
    ]  # fmt: skip


@given(st.one_of(NAMES, WORDS.map(" ".join)), WORDS)
def test_a_command_that_nobody_knows(name: str, words: list[str]) -> None:
    made = parsed(["--engine", "notify", "--", name, *words])
    if name in (*PREPARED, *STARTS_NOTHING):
        return
    told = []

    def become(command: list[str], called: str) -> None:
        told.extend(command)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "become", become)
        try:
            cli._execute(made)
        except Error:
            assert not told
        else:
            assert name[:1] != "-"
            assert told[1:] == [invocation._NO_ROOT, name, *words]
