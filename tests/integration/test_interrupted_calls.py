"""Signals that come while a call waits for the agent: seccomp_unotify(2)."""

import contextlib
import os
import signal
from pathlib import Path

from conftest import MakeBundle
from support.containers import Runrootless
from support.processes import eventually
from support.programs import compile_program
from support.users import Account, Unprivileged

# Calls stat(2) until it is told to stop, and prints how often that was interrupted, and failed.
PROGRAM = r"""
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
static volatile sig_atomic_t stopped;
static void handle(int number) { if (number == SIGUSR2) stopped = 1; }
int main(void) {
    struct sigaction action = {.sa_handler = handle};
    struct stat status;
    long interrupted = 0, failed = 0;
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    while (!stopped)
        if (stat("/etc/passwd", &status) != 0) {
            if (errno == EINTR) interrupted++; else failed++;
        }
    printf("%ld %ld\n", interrupted, failed);
}
"""

SIGNALS = 2000
RECEIVED = 50


def named(account: Account, name: str) -> int:
    """Return the process of that name; 0 if there is none."""
    for process in account.processes():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{process.pid}/comm").read_text() == f"{name}\n":
                return process.pid
    return 0


def states(pid: int) -> set[str]:
    """Return the states of all threads of a process: proc(5)."""
    return {
        (thread / "stat").read_text().rpartition(")")[2].split()[0]
        for thread in Path(f"/proc/{pid}/task").iterdir()
    }


def send_signal(agent: int, caller: int) -> bool:
    """Send a signal to a caller whose call the agent does not go on with meanwhile.

    Returns whether that call was received before: then the caller goes on to wait for the
    answer, in the state of those that only the end of their process interrupts.
    """
    os.kill(agent, signal.SIGSTOP)
    try:
        eventually(lambda: states(agent) == {"T"}, "the agent is stopped")
        os.kill(caller, signal.SIGUSR1)
        return eventually(lambda: states(caller) & {"D", "S"}, "the caller waits") == {"D"}
    finally:
        os.kill(agent, signal.SIGCONT)


def test_a_received_call_is_not_interrupted(
    bundle: MakeBundle, unprivileged: Unprivileged, runrootless: Runrootless
) -> None:
    program = compile_program(PROGRAM, f"{unprivileged.session}/storm", ["-static"])
    mount = {"destination": "/dev/storm", "type": "bind", "source": program, "options": ["bind"]}
    ours = bundle().set(["/dev/storm"]).change(lambda config: config["mounts"].append(mount))
    process = unprivileged.start(
        runrootless.command("run", "--bundle", ours.path, runrootless.new_id())
    )
    caller = eventually(lambda: named(unprivileged.account, "storm"), "the program runs")
    agent = named(unprivileged.account, "runrootless-agt")
    sent: list[bool] = []
    while sum(sent) < RECEIVED and len(sent) < SIGNALS:
        sent.append(send_signal(agent, caller))
    os.kill(caller, signal.SIGUSR2)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    interrupted, failed = map(int, output.split())
    assert sum(sent) >= RECEIVED
    # The signal that stops it may have interrupted one more.
    assert interrupted <= len(sent) - sum(sent) + 1
    assert failed == 0
