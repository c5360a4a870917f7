"""Unmounting what processes may still be using for a moment."""

import subprocess

from support.processes import eventually


def unmount(path: str) -> None:
    """Unmount a file system of a test's, as soon as nobody uses it any more.

    The agent of a container that has ended goes a moment after it, and has files in the
    private directory until then. Raises AssertionError where somebody stays.
    """
    said = ""

    def done() -> bool:
        nonlocal said
        run = subprocess.run(["umount", path], stderr=subprocess.PIPE, text=True, check=False)
        said = run.stderr.strip()
        return run.returncode == 0

    eventually(done, lambda: said)
