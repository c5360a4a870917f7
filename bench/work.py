"""What people wait for: jobs over trees of many files, as multiples of the real root's time.

Each job runs in a container, chroot or session of its own, and measures itself (jobs.sh). The
trees are on a tmpfs. Programs that cannot do a job are left out of its row.
"""

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.measure import Contender, Report, Sample, Series, interleave, parser
from bench.stage import COMMAND, Stage, debian_archive, stage
from support.bundles import Bundle
from support.containers import Runrootless
from support.processes import Result
from support.trees import RECIPES

Ways = dict[str, Callable[[list[str]], Result]]

HERE = os.path.dirname(os.path.abspath(__file__))
QUANTITY = "time"
TIMEOUT = 900.0
RECIPE = "work"
PACKAGES = "autoconf,busybox-static,fakeroot,gcc,git,libc6-dev,make,npm,python3-pip,rsync"
RECIPES[RECIPE] = [
    f"--include={PACKAGES}",
    f"--customize-hook=copy-in {HERE}/work_tree.sh /",
    '--customize-hook=chroot "$1" /work_tree.sh',
]

# What to do, in jobs.sh. Those of busybox are static programs.
JOBS = {
    "git-status": "`git status`, 20,000 files",
    "git-checkout": "`git checkout` of 4,000 files, there and back",
    "du": "`du -s /usr`",
    "find": "`find / -xdev -ls`",
    "ls": "`ls -lR /usr`",
    "busybox-du": "[static] `busybox du -s /usr`",
    "busybox-find": "[static] `busybox find -user`",
    "read": "open, read and close 20,000 files",
    "tar-c": "`tar -c`, 20,000 files",
    "busybox-tar-c": "[static] `busybox tar -c`",
    "tar-x": "`tar -x`, 20,000 files",
    "cp": "`cp -a`",
    "rsync": "`rsync -a`",
    "rm": "`rm -rf`",
    "chown": "`chown -R`",
    "configure": "`./configure`",
    "make": "`make -j2`",
    "compileall": "`python3 -m compileall`",
    "python": "50 times `python3 -c pass`",
    "pip": "`pip install` of 2,000 files",
    "npm": "`npm install` of 2,000 files",
}

# The user's own, in which the kernel shows them as root: what fakeroot needs for a chroot.
_CHROOT = """
mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && root=$0 && exec chroot "$root" "$@"
"""


class Work:
    """The contenders, each with a tree of its own, so that none finds what another has left."""

    def __init__(self, here: Stage, archive: str) -> None:
        self._here = here
        self._archive = archive
        self._untried: dict[tuple[str, str], str] = {}

    def _sample(self, name: str, job: str, run: Callable[[list[str]], Result]) -> Sample:
        if (name, job) in self._untried:
            return {}
        result = run(["/srv/jobs.sh", job])
        if result.returncode or not result.stdout.strip().isdigit():
            last = (result.stderr.strip() or result.stdout.strip() or "no output").splitlines()[-1]
            self._untried[name, job] = f"{name}: {job}: {result.returncode}: {last}"
            return {}
        return {QUANTITY: int(result.stdout) / 1e6}

    def failures(self) -> list[str]:
        """Return a line for each job that a contender could not do."""
        return list(self._untried.values())

    def _furnish(self, root: str) -> str:
        path = os.path.join(root, "srv", "jobs.sh")
        shutil.copy(os.path.join(HERE, "jobs.sh"), path)
        self._here.user.give(path)
        return root

    def ways(self, engines: Sequence[str], *, alone: bool) -> Ways:
        """Return how each contender runs a command. The first one is the real root."""
        here = self._here
        _, oracle = here.oracle_copy(self._archive)
        shutil.copy(os.path.join(HERE, "jobs.sh"), os.path.join(oracle, "srv"))
        found: Ways = {"real root": lambda words: here.chroot(oracle, words, TIMEOUT)}
        for engine in engines:
            directory, root = here.rootless_copy(self._archive)
            bundle = here.bundle(directory, self._furnish(root), ["/srv/jobs.sh"])
            found[engine] = partial(self._runrootless, bundle, engine.split())
        others: dict[str, Callable[[str, list[str]], Result]] = {
            "PRoot": lambda root, words: here.proot(root, words, TIMEOUT),
            "fakeroot": self._fakeroot,
            "podman": self._podman,
            "ch-run": self._ch_run,
        }
        for name, run in others.items():
            needed = {"PRoot": "proot", "fakeroot": "unshare"}.get(name, name)
            if not alone and shutil.which(needed) is not None:
                _, root = here.rootless_copy(self._archive)
                found[name] = partial(run, self._furnish(root))
        return found

    def _runrootless(self, bundle: Bundle, options: list[str], words: list[str]) -> Result:
        runrootless = Runrootless(self._here.user, ["--engine", *options])
        return runrootless.run(bundle.set(words), timeout=TIMEOUT)

    def _fakeroot(self, root: str, words: list[str]) -> Result:
        command = ["unshare", "--user", "--map-root-user", "--mount", "--propagation=slave"]
        command += ["sh", "-c", _CHROOT, root, "fakeroot", *words]
        return self._here.user.run(command, timeout=TIMEOUT)

    def _podman(self, root: str, words: list[str]) -> Result:
        command = ["podman", "--cgroup-manager=cgroupfs", f"--runtime={shutil.which('runc')}"]
        command += ["run", "--rm", "--network=host", "--rootfs", root, *words]
        return self._here.user.run(command, timeout=TIMEOUT)

    def _ch_run(self, root: str, words: list[str]) -> Result:
        command = ["ch-run", "--write", "--uid=0", "--gid=0", root, "--", *words]
        return self._here.user.run(command, timeout=TIMEOUT)

    def measure(self, job: str, ways: Ways, rounds: int) -> Series:
        """Measure one job."""
        contenders = [
            Contender(name, partial(self._sample, name, job, run)) for name, run in ways.items()
        ]
        return interleave(job, "s", contenders, rounds, warm_up=1)


def row(series: Series, names: Sequence[str]) -> str:
    """Return a job's row of the Markdown table: seconds of real root, multiples of the others."""
    cells = [JOBS[series.title], f"{series.median(names[0], QUANTITY):.2f} s"]
    for name in names[1:]:
        pairs = [
            sample[name][QUANTITY] / sample[names[0]][QUANTITY]
            for sample in series.rounds
            if QUANTITY in sample[name]
        ]
        if pairs:
            cells.append(f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})")
        else:
            cells.append("fails")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "", rounds=3)
    options.add_argument("--job", action="append", choices=list(JOBS), help="default: all")
    options.add_argument(
        "--engine", action="append", help="with options after it; default: notify and thorough"
    )
    options.add_argument("--alone", action="store_true", help="without other programs")
    options.add_argument("--in-namespace", action="store_true", help="used by the program itself")
    arguments = options.parse_args()
    if not arguments.in_namespace:
        # The tmpfs is to be seen here only, and goes with the program.
        again = [sys.executable, *sys.argv, "--in-namespace"]
        command = ["unshare", "--mount", "--propagation=slave", *again]
        raise SystemExit(subprocess.run(command).returncode)
    report = Report("work", COMMAND, arguments.json)
    with stage() as here:
        archive = debian_archive(RECIPE)
        mount = ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", here.trees.directory]
        subprocess.run(mount, check=True)
        try:
            work = Work(here, archive)
            ways = work.ways(arguments.engine or ["notify", "thorough"], alone=arguments.alone)
            rows = []
            for job in arguments.job or JOBS:
                series = report.add(work.measure(job, ways, arguments.rounds))
                rows.append(row(series, list(ways)))
        finally:
            subprocess.run(["umount", "--lazy", here.trees.directory], check=False)
    print(f"\n| work | {' | '.join(ways)} |\n|{' --- |' * (len(ways) + 1)}")
    print("\n".join(rows))
    print("\n".join(work.failures()))
    report.close()


if __name__ == "__main__":
    main()
