"""What the benchmarks run on: the tests' user, trees and oracle, and a C probe."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from support.bundles import Bundle
from support.containers import COMMAND, Runrootless
from support.oracle import in_chroot
from support.processes import Result
from support.trees import Trees, debian_archive
from support.users import AS_ROOT, Account, Unprivileged

__all__ = ["COMMAND", "Stage", "build_probe", "debian_archive", "stage"]

_PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "probe.c")


class Stage:
    """One benchmark's user without privileges, and its root file systems."""

    def __init__(self, user: Unprivileged, trees: Trees) -> None:
        self.user = user
        self.trees = trees
        self.runrootless = Runrootless(user)

    def rootless_copy(self, archive: str) -> tuple[str, str]:
        """Return a bundle directory of the user's and a fresh copy of the tree in it."""
        directory = self.trees.new_directory("rootless", for_user=True)
        copy = self.trees.copy(self.trees.rootless(archive), os.path.join(directory, "rootfs"))
        return directory, copy

    def oracle_copy(self, archive: str) -> tuple[str, str]:
        """Return a directory and in it a fresh copy of the tree for the real root."""
        directory = self.trees.new_directory("oracle", for_user=False)
        copy = self.trees.copy(self.trees.oracle(archive), os.path.join(directory, "rootfs"))
        return directory, copy

    def chroot(self, root: str, args: Sequence[str], timeout: float) -> Result:
        """Run a command as the real root in a chroot that is furnished like a container."""
        return in_chroot(root, args, timeout=timeout)

    def bundle(self, directory: str, root: str, args: Sequence[str]) -> Bundle:
        """Write the regular bundle of a container that runs a command."""
        return self.runrootless.bundle_at(directory, root).set(args)


@contextmanager
def stage() -> Iterator[Stage]:
    """Make the user and the place for trees; take it all away in the end."""
    if not AS_ROOT:
        raise SystemExit("the real root is what the others are compared with: run this as root")
    if not os.access(COMMAND, os.X_OK):
        raise SystemExit(
            f"{COMMAND} is not there: run ./test.sh once, then this with .venv/bin/python"
        )
    user = Unprivileged(Account.find())
    trees = Trees(user)
    try:
        yield Stage(user, trees)
    finally:
        user.close()
        trees.close()


def build_probe(path: str, *, static: bool = True) -> None:
    """Compile the probe: statically, so that any tree can run it, or for one like the host's."""
    options = ["-static"] if static else []
    subprocess.run(["gcc", "-O2", *options, "-Wall", "-o", path, _PROBE], check=True)
    os.chmod(path, 0o755)
