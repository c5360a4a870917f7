"""What is made of the description of the command line: man pages, and completions of shells."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runrootless.command_line import manual, usage

SHARE = Path(sys.prefix, "share")
# In place of the command: it knows two containers.
PROGRAM = """#!/bin/sh
case "$*" in
*"list --quiet") echo "$*" >"$0.log"; printf 'web-1\\nweb-2\\n' ;;
esac
"""
PAGES = ["runrootless", *(f"runrootless-{one.name}" for one in manual.COMMANDS if one.flags)]

# What is typed, and what is offered.
TYPED = [
    ("runrootless ex", {"exec", "export"}),
    ("runrootless --engine t", {"thorough"}),
    ("runrootless --engine thorough --debug d", {"delete", "doctor"}),
    ("runrootless run --netw", {"--network"}),
    ("runrootless run --network p", {"pasta"}),
    ("runrootless bundle --transport s", {"skopeo"}),
    ("runrootless setup ", {"podman"}),
    ("runrootless kill w", {"web-1", "web-2"}),
    ("runrootless --root /x exec web-2", {"web-2"}),
    ("runrootless export /us", {"/usr/"}),
]
"""Which the shells are to complete in the same way."""

# The words as bash has them, where = is one by itself.
BASH = """
. "$1"
words=(${2//=/ = }); [[ $2 == *' ' ]] && words+=('')
COMP_WORDS=("${words[@]}") COMP_CWORD=$((${#words[@]} - 1))
_runrootless 2>/dev/null
for word in "${COMPREPLY[@]}"; do [ -d "$word" ] && word=$word/; echo "$word"; done
"""
FISH = """source $argv[1]; complete -C $argv[2]"""


@pytest.mark.parametrize("page", PAGES)
def test_man_pages(page: str) -> None:
    path = SHARE / "man" / "man1" / f"{page}.1"
    text = path.read_text().replace("\\-", "-")
    one = manual.command(page.partition("-")[2]) if "-" in page else manual.PROGRAM
    for spellings, _, _ in one.options():
        assert all(f"\\fB{spelling}\\fR" in text for spelling in spellings)
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed: ./test.sh does that")
    done = subprocess.run(["mandoc", "-Tlint", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_each_command_has_a_page() -> None:
    found = {path.name.removesuffix(".1") for path in (SHARE / "man" / "man1").glob("runr*.1")}
    assert found == set(PAGES)


@pytest.mark.parametrize("one", [manual.PROGRAM, *manual.COMMANDS], ids=lambda one: one.name)
def test_all_flags_have_words(one: manual.Command) -> None:
    """``options`` raises KeyError for a flag without."""
    for spellings, value, text in one.options():
        assert text
        name = spellings[0].lstrip("-")
        for choice in one.choices(name) if value else ():
            assert re.search(rf"\b{choice}\b", f"{value} {text}"), f"--{name}: {choice}"


def test_no_line_of_the_help_is_too_wide() -> None:
    told = [usage.of_program(), *(usage.of_command(one) for one in manual.COMMANDS if one.flags)]
    assert not [line for text in told for line in text.splitlines() if len(line) > 80]


@pytest.mark.parametrize(
    ("shell", "file", "command"),
    [
        ("bash", "bash-completion/completions/runrootless.bash", ["bash", "-c", BASH, "bash"]),
        ("fish", "fish/vendor_completions.d/runrootless.fish", ["fish", "-c", FISH]),
    ],
)
def test_completions(shell: str, file: str, command: list[str], tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: ./test.sh does that")
    program = tmp_path / "runrootless"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path), "TERM": "dumb"}
    for typed, offered in TYPED:
        done = subprocess.run(
            [*command, str(SHARE / file), typed],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
        )
        found = {line.partition("\t")[0] for line in done.stdout.splitlines()}
        assert found == offered, typed
    # The global flags are those of the command that is typed.
    assert (tmp_path / "runrootless.log").read_text() == "--root /x list --quiet\n"


def test_completion_of_zsh_is_read() -> None:
    """Its functions work in an interactive shell only."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed: ./test.sh does that")
    path = SHARE / "zsh" / "site-functions" / "_runrootless"
    done = subprocess.run(["zsh", "-n", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for one in manual.COMMANDS:
        for spelling in one.flags.names if one.flags else ():
            assert re.search(rf"'\*?--?{spelling}[=+]?\[", path.read_text())
