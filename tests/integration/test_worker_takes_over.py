"""What a worker knows of files that can carry nothing: the next one knows it too."""

import os
import signal
import subprocess
import tempfile

import pytest

from conftest import MakeBundle
from support.agents import the_worker
from support.bundles import Bundle
from support.containers import Runrootless
from support.trees import Tree

TELL = """
import os, stat, sys
{}
print("up", flush=True)
for line in sys.stdin:
    print({}, flush=True)
"""
CASES = {
    "mode and times of a device node of the host's": (
        'os.chmod("/dev/full", 0o600); os.utime("/dev/full", ns=(5, 7))',
        '*(lambda s: (oct(s.st_mode), s.st_atime_ns, s.st_mtime_ns))(os.stat("/dev/full"))',
        "0o20600 5 7",
    ),
    "a pipe that somebody else has made": (
        "end, _ = os.pipe(); os.setgid(33); os.setuid(33)",
        "*(lambda s: (s.st_uid, s.st_gid))(os.fstat(end))",
        "0 0",
    ),
    "a device node that was given away": (
        'os.chown("/dev/full", 33, 34)',
        '*(lambda s: (s.st_uid, s.st_gid))(os.stat("/dev/full"))',
        "33 34",
    ),
    "a standard stream that is a file of the host's": ("", "os.fstat(2).st_uid", "33"),
    "a standard stream that is a pipe": ("", "os.fstat(1).st_uid", "33"),
}


def program(bundle: Bundle, before: str, told: str) -> Bundle:
    return bundle.set(["python3", "-c", TELL.format(before, told)])


@pytest.mark.parametrize("case", CASES)
def test_it_takes_over(
    case: str, bundle: MakeBundle, runrootless: Runrootless, tools_tree: Tree
) -> None:
    before, told, expected = CASES[case]
    ours = program(bundle(tools_tree), before, told)
    if not before:
        ours.set(user=(33, 33, []))
    words = runrootless.command(
        "--engine", "thorough", "run", "--bundle", ours.path, runrootless.new_id()
    )
    with tempfile.TemporaryFile() as errors:
        process = runrootless.user.start(words, stdin=subprocess.PIPE, stderr=errors.fileno())
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "up\n"
        account = runrootless.user.account
        for number in range(4):
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{expected}\n", f"after {number} workers"
            os.kill(the_worker(account), signal.SIGKILL)
        process.stdin.close()
        assert process.wait(30) == 0
        process.stdout.close()
