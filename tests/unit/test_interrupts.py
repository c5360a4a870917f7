"""What an interrupt does to a process in each of the states of ``interrupts``."""

import signal
import subprocess
import sys

import pytest

_BEGIN = """
import os, signal
from runrootless import interrupts
def interrupt(): os.kill(os.getpid(), signal.SIGINT)
interrupts.leave_to_the_kernel()
"""


def run(script: str, ignored: bool = False) -> "subprocess.CompletedProcess[str]":
    def before() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)

    command = [sys.executable, "-c", _BEGIN + script]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=before)


@pytest.mark.parametrize(
    ("script", "out", "code"),
    [
        ("interrupt(); print(1)", "", -signal.SIGINT),
        (
            "interrupts.hold(); interrupt(); print(1, flush=True)\n"
            "interrupts.let_through(); print(2)",
            "1\n",
            -signal.SIGINT,
        ),
        (
            """
interrupts.hold()
try:
    with interrupts.Raised():
        interrupt()
except KeyboardInterrupt:
    print(1, flush=True)
interrupt()
print(2, flush=True)
interrupts.let_through()
print(3)
""",
            "1\n2\n",
            -signal.SIGINT,
        ),
    ],
)
def test_interrupts(script: str, out: str, code: int) -> None:
    done = run(script)
    assert (done.stdout, done.stderr, done.returncode) == (out, "", code)
    # nohup(1) and the background jobs of a shell.
    lines = sum(line.count("print(") for line in script.splitlines()) - script.count("except")
    done = run(script, ignored=True)
    assert (len(done.stdout.splitlines()), done.stderr, done.returncode) == (lines, "", 0)


@pytest.mark.parametrize("held", [False, True])
def test_what_the_caller_has_blocked(held: bool) -> None:
    hold, let_through = ("interrupts.hold()", "interrupts.let_through()") if held else ("", "")
    done = run(f"""
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
{hold}
with interrupts.Raised():
    interrupt()
{let_through}
print(signal.sigpending())
""")
    assert (done.stdout, done.stderr) == ("{<Signals.SIGINT: 2>}\n", "")
