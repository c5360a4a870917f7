"""Whether apt-get installs the packages of ``apt_install.py`` each time, with all owners right.

Each time has a fresh copy of the tree. Afterwards the type, owner, mode, device and content of
every file, as a later container sees it, are compared with the real root's installation.
"""

import argparse
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.apt_install import INSTALL, PACKAGES, TIMEOUT, archive, forbid_daemons
from bench.stage import Stage, stage
from support.containers import Runrootless
from support.installations import check_same
from support.snapshots import INSPECT, Snapshot, inspected, snapshot


def installed_by_root(here: Stage, tree: str) -> tuple[Snapshot, str]:
    """Install once as the real root; return what there is then, and where."""
    _, root = here.oracle_copy(tree)
    forbid_daemons(root)
    here.chroot(root, INSTALL, TIMEOUT).check()
    return snapshot(root, rootless=False), root


def once(here: Stage, tree: str, engine: str, oracle: tuple[Snapshot, str]) -> str:
    """Install in a container of an engine; return what became of it, beginning with ``rc``."""
    directory, root = here.rootless_copy(tree)
    here.user.give(forbid_daemons(root))
    runrootless = Runrootless(here.user, ["--engine", engine])
    bundle = here.bundle(directory, root, INSTALL)
    began = time.monotonic()
    done = runrootless.run(bundle, timeout=TIMEOUT)
    seconds = time.monotonic() - began
    said = f"rc {done.returncode}, {seconds:.1f} s"
    if done.returncode == 0:
        seen = runrootless.run(bundle.script(INSPECT), timeout=TIMEOUT).check()
        try:
            found = inspected(seen.stdout, root)
            check_same(oracle[0], found, oracle[1])
            said += f", {len(found)} files the same"
        except AssertionError as error:
            said += f", DIFFERENT: {error}"
    else:
        said += f": {done.stdout[-2000:]}{done.stderr[-2000:]}"
    runrootless.assert_nothing_left()
    here.trees.discard(directory)
    return said


def main() -> None:
    """Install, compare and print; the exit code is 1 unless all are right."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--times", type=int, default=30, help="how often (default: 30)")
    options.add_argument("--engine", default="notify", help="default: notify")
    arguments = options.parse_args()
    good = 0
    with stage() as here:
        tree = archive()
        print(f"apt-get install {' '.join(PACKAGES)}", flush=True)
        oracle = installed_by_root(here, tree)
        for number in range(1, arguments.times + 1):
            said = once(here, tree, arguments.engine, oracle)
            good += said.startswith("rc 0,") and "DIFFERENT" not in said
            print(f"{number}: {said}", flush=True)
    print(f"{good} of {arguments.times} with exit code 0 and all files as the real root has them")
    raise SystemExit(good != arguments.times)


if __name__ == "__main__":
    main()
