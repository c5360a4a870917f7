"""Connections to the agent that somebody keeps without a word stand in nobody's way for long."""

import os
import subprocess
import sys

import pytest

from conftest import MakeBundle
from runrootless.agent.connections import LIMIT
from runrootless.containers import state
from support.containers import Runrootless

# As if a container's root had kept those of as many commands: each is another process's.
KEEP = """
import os, signal, socket, sys, time
for _ in range(int(sys.argv[2])):
    kept = socket.socket(socket.AF_UNIX)
    reader, writer = os.pipe()
    if os.fork() == 0:
        kept.connect(sys.argv[1])
        os.write(writer, b"x")
        time.sleep(600)
    os.read(reader, 1)
    os.set_inheritable(kept.fileno(), False)
print("kept", flush=True)
time.sleep(600)
"""


def sockets(runrootless: Runrootless) -> list[str]:
    base = os.path.join(runrootless.user.runtime_dir, "runrootless")
    return [os.path.join(base, name, state.LISTENER) for name in os.listdir(base)]


@pytest.mark.parametrize("count", [LIMIT, 2 * LIMIT])
def test_they_give_way(count: int, bundle: MakeBundle, runrootless: Runrootless) -> None:
    name = runrootless.new_id()
    ours = bundle().script("stat -c %G /etc/shadow >/dev/shm/out; while :; do sleep 0.05; done")
    # Its own connection waits for its start.
    words = runrootless.command("create", "--bundle", ours.path, name)
    created = runrootless.user.start(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert created.wait(60) == 0
    (path,) = sockets(runrootless)
    keeper = runrootless.user.start([sys.executable, "-c", KEEP, path, str(count)])
    try:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == "kept\n"
        runrootless("start", name).check()
        for _ in range(2):
            done = runrootless("exec", name, "stat", "-c", "%G", "/etc/shadow", timeout=90)
            assert done.check().stdout == "shadow\n"
        done = runrootless("exec", name, "cat", "/dev/shm/out")
        assert done.check().stdout == "shadow\n"
    finally:
        os.killpg(keeper.pid, 9)
        keeper.communicate()
        runrootless("delete", "--force", name).check()
