"""Which files are of a procfs, while file systems come and go."""

import os
import subprocess
import sys

import pytest

# Mounts one file system after the other at the same place, in a mount namespace of its own.
# The kernel gives the number of one that is unmounted to the next one.
SCRIPT = """
import ctypes, os, sys
from runrootless.emulation.paths.procfs import Procfs
libc = ctypes.CDLL(None, use_errno=True)
place = sys.argv[1]
os.chdir("/proc")
procfs = Procfs()
procfs.look()
devices = {}
for kind in sys.argv[2:]:
    assert libc.mount(b"none", place.encode(), kind.encode(), 0, None) == 0, ctypes.get_errno()
    file = os.open(place, os.O_PATH)
    device = os.fstat(file).st_dev
    answer = procfs.contains(file, device)
    os.close(file)
    assert libc.umount2(place.encode(), 0) == 0, ctypes.get_errno()
    assert answer == (kind == "proc"), (kind, devices.get(device))
    if device in devices and devices[device] != kind:
        print("again", kind)
    devices[device] = kind
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_number_that_another_one_had(tmp_path: str) -> None:
    kinds = ["tmpfs", "proc", "tmpfs", "ramfs", "proc", "proc", "tmpfs"] * 4
    # A pid namespace of its own: its procfs is a new one each time.
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", sys.executable, "-c", SCRIPT, tmp_path, *kinds],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert {"again proc", "again tmpfs"} <= set(done.stdout.splitlines())
