"""How long apt-get takes to install some servers, in runrootless and as the real root.

Packages and lists are in the tree already and nothing is downloaded. Each run has a
fresh copy of the tree, which is made before the clock starts. The copies are removed in
the end: for minutes after files were deleted, ext4 takes longer to make new ones.
"""

import ctypes
import os
import resource
import sys
import time
from functools import partial

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.measure import Contender, Report, Sample, interleave, parser
from bench.stage import COMMAND, Stage, debian_archive, stage
from bench.ways import PROOT, REAL_ROOT, Place, Way, engine, reason
from support.processes import Result
from support.trees import RECIPES

PACKAGES = (
    "nginx-light",
    "postgresql-common",
    "openssh-server",
    "dbus",
    "cowsay",
    "python3-minimal",
    "git",
)
RECIPE = "apt-install"
INSTALLATION = "apt-get install"
TARGET = 1.15
TIMEOUT = 600
INSTALL = [
    "/usr/bin/env",
    "DEBIAN_FRONTEND=noninteractive",
    "apt-get",
    "install",
    "--yes",
    "--no-download",
    *PACKAGES,
]
# No daemon is to be started, as in every image of Debian for containers.
POLICY = "#!/bin/sh\nexit 101\n"

_PR_SET_CHILD_SUBREAPER = 36


def archive() -> str:
    """Return the tar of the tree with all that will be installed in apt's cache."""
    # mmdebstrap has turned the recommended packages off while it is at work.
    download = "apt-get install --download-only --yes --install-recommends"
    RECIPES[RECIPE] = [
        "--skip=cleanup/apt",
        # One of the contenders, which has to be in the tree.
        "--include=fakeroot",
        f'--customize-hook=chroot "$1" {download} {" ".join(PACKAGES)}',
        # Downloaded by apt outside the tree, and no part of the installation.
        '--customize-hook=rm -f "$1"/var/cache/apt/*.bin',
    ]
    return debian_archive(RECIPE)


def forbid_daemons(root: str) -> str:
    """Write the policy of a tree, which mmdebstrap would have removed, and return its path."""
    path = os.path.join(root, "usr", "sbin", "policy-rc.d")
    with open(path, "x") as file:
        file.write(POLICY)
    os.chmod(path, 0o755)
    return path


def adopt_orphans() -> None:
    """Become the parent of the agents, so that their use of the processor is known."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise SystemExit("this process cannot become a subreaper")


def reap(deadline: float) -> dict[str, float]:
    """Wait for the orphans that a contender left, and return what they used."""
    seconds = 0.0
    while time.monotonic() < deadline:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid:
            seconds += usage.ru_utime + usage.ru_stime
        else:
            time.sleep(0.01)
    return {"processor time of the agent alone": seconds} if seconds else {}


class Clock:
    """Takes the time of an installation: what goes by, and what the processors spend on it."""

    def __init__(self) -> None:
        self._spent = self._children()
        self._began = time.monotonic()
        self.seconds = 0.0

    @staticmethod
    def _children() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def stop(self, what: str = INSTALLATION) -> Sample:
        """Return what was taken, once the orphans that a contender left have ended."""
        self.seconds = time.monotonic() - self._began
        agent = reap(time.monotonic() + 5)
        spent = self._children() - self._spent
        return {what: self.seconds, f"{what}: processor time": spent, **agent}


def install(here: Stage, way: Way, place: Place) -> tuple[Sample, Result]:
    """Install in a tree that nothing has been done with; return what it took, and what was said."""
    policy = forbid_daemons(place.root)
    if way is not REAL_ROOT:
        here.user.give(policy)
    clock = Clock()
    result = way.run(here, place, INSTALL, TIMEOUT)
    failed = f"{INSTALLATION}, which failed ({result.returncode})"
    return clock.stop(failed if result.returncode else INSTALLATION), result


def sample(here: Stage, tree: str, way: Way) -> Sample:
    """Return what an installation took. That PRoot fails is told, and ends nothing."""
    place = way.place(here, tree)
    taken, result = install(here, way, place)
    if way is not PROOT:
        result.check()
    elif result.returncode:
        print(f"{way.name}: {reason(result, place)}")
    return taken


def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "", rounds=5)
    options.add_argument("--proot", action="store_true", help="also under PRoot")
    options.add_argument("--thorough", action="store_true", help="also with that engine")
    arguments = options.parse_args()
    report = Report("apt_install", COMMAND, arguments.json)
    adopt_orphans()
    with stage() as here:
        if arguments.proot and not PROOT.is_there(here):
            raise SystemExit("PRoot is not installed")
        tree = archive()
        compared: list[Way] = [REAL_ROOT, engine("notify", "runrootless")]
        compared += [engine("thorough")] if arguments.thorough else []
        compared += [PROOT] if arguments.proot else []
        ways = [Contender(way.name, partial(sample, here, tree, way)) for way in compared]
        # Unpacked before the first round.
        here.trees.oracle(tree)
        here.trees.rootless(tree)
        series = report.add(interleave("installation", "s", ways, arguments.rounds))
        report.judge(INSTALLATION, series.ratio("runrootless", INSTALLATION), TARGET)
    report.close()


if __name__ == "__main__":
    main()
