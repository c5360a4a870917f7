"""A container at a terminal."""

from collections.abc import Callable, Iterator

import pytest

from conftest import MakeBundle, both_runtimes
from support.containers import Runrootless
from support.processes import Terminal, eventually

pytestmark = both_runtimes

Start = Callable[..., Terminal]


@pytest.fixture
def start(bundle: MakeBundle, runrootless: Runrootless) -> Iterator[Start]:
    """Start bash in a container at a terminal."""
    terminals = []

    def start(*args: str, rows: int = 24, columns: int = 80) -> Terminal:
        ours = bundle().set(
            args or ["bash", "--norc", "--noediting"], env={"PS1": "ready> "}, terminal=True
        )
        terminal = runrootless.terminal(ours, rows=rows, columns=columns)
        terminals.append(terminal)
        if not args:
            terminal.expect("ready> ")
        return terminal

    yield start
    for terminal in terminals:
        terminal.close()


def test_exit_code(start: Start) -> None:
    terminal = start()
    terminal.send("exit 23\n")
    assert terminal.wait() == 23


def test_ctrl_d_ends_the_shell(start: Start) -> None:
    terminal = start()
    terminal.send("false\n")
    terminal.expect("ready> ")
    terminal.send("\x04")
    assert terminal.wait() == 1


def test_ctrl_c_reaches_the_foreground(start: Start) -> None:
    terminal = start()
    terminal.send(
        'sh -c \'trap "echo caught; exit 5" INT; echo st""arted; while :; do sleep 0.05; done\'\n'
    )
    terminal.expect("started")
    terminal.send("\x03")
    terminal.expect("caught")
    terminal.expect("ready> ")
    terminal.send("echo code $?\n")
    terminal.expect("code 5")
    terminal.send("exit\n")
    assert terminal.wait() == 0


def test_job_control(start: Start) -> None:
    terminal = start()
    assert "no job control" not in terminal.output
    terminal.send("cat\n")
    # What cat prints follows the echo of what was typed.
    terminal.send("first\n")
    terminal.expect("first\r\nfirst\r\n")
    terminal.send("\x1a")
    terminal.expect("Stopped")
    terminal.expect("ready> ")
    terminal.send("jobs\n")
    terminal.expect("[1]+  Stopped")
    terminal.expect("ready> ")
    terminal.send("fg\n")
    terminal.expect("fg\r\ncat\r\n")
    terminal.send("second\n")
    terminal.expect("second\r\nsecond\r\n")
    terminal.send("\x03")
    terminal.expect("ready> ")
    terminal.send("echo code $?; jobs; echo none\n")
    terminal.expect("code 130\r\nnone\r\n")
    terminal.send("exit 0\n")
    assert terminal.wait() == 0


def test_window_size(start: Start, runtime: str) -> None:
    terminal = start(rows=31, columns=101)
    terminal.send("stty size\n")
    if runtime == "crun":
        # crun 1.8 does not see to it, also by itself.
        terminal.expect("0 0")
        terminal.send("exit 0\n")
        assert terminal.wait() == 0
        return
    terminal.expect("31 101")
    terminal.expect("ready> ")
    terminal.resize(42, 77)
    # The runtime hears of it by a signal.
    eventually(
        lambda: "42 77" in terminal.answer("stty size", "ready> "), "the new size of the window"
    )
    terminal.send("exit 0\n")
    assert terminal.wait() == 0


def test_the_terminal_is_a_terminal(start: Start) -> None:
    terminal = start()
    terminal.send("tty; stat -c '%U %F' $(tty); stat -c %G /etc/shadow\n")
    terminal.expect("/dev/pts/0")
    terminal.expect("root character special file")
    terminal.expect("shadow")
    terminal.send("exit 0\n")
    assert terminal.wait() == 0


def test_the_settings_are_put_back(start: Start) -> None:
    terminal = start("sh", "-c", "stty raw -echo; sleep 0; echo done")
    terminal.expect("done")
    terminal.wait()
    assert terminal.attributes() == terminal.initial_attributes


def test_exec_at_a_terminal(bundle: MakeBundle, runrootless: Runrootless) -> None:
    name = runrootless.new_id()
    ours = bundle().script("while :; do sleep 0.05; done")
    runrootless("run", "--detach", "--bundle", ours.path, name).check()
    args = runrootless.command("exec", "--tty", "--user", "33:33", name, "bash", "--norc")
    terminal = runrootless.user.terminal(args)
    terminal.expect("$ ")
    terminal.send("id -un; test -t 0 && echo a terminal; exit 4\n")
    terminal.expect("www-data")
    terminal.expect("a terminal")
    assert terminal.wait() == 4
    terminal.close()
    runrootless("delete", "--force", name).check()


def test_exec_at_none(bundle: MakeBundle, runrootless: Runrootless) -> None:
    name = runrootless.new_id()
    ours = bundle().set(["sleep", "1000"])
    runrootless("run", "--detach", "--bundle", ours.path, name).check()
    done = runrootless("exec", "--tty", name, "true")
    runrootless("delete", "--force", name).check()
    assert (done.returncode, done.stdout) == (255, "")
    assert "exec --tty asks for a terminal, and there is none" in done.stderr
    assert len(done.stderr.splitlines()) == 1
