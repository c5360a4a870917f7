"""What people wait for: jobs over trees of many files, as multiples of the real root's time.

Each job runs in a container, chroot or session of its own, and measures itself (jobs.sh). The
trees are on a tmpfs. Programs that cannot do a job are left out of its row.
"""

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.measure import Contender, Report, Sample, Series, interleave, parser
from bench.stage import COMMAND, Stage, debian_archive, stage
from bench.ways import OTHERS, REAL_ROOT, Place, Way, engine, installed, reason
from support.trees import RECIPES

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


class Work:
    """The contenders, each with a tree of its own, so that none finds what another has left.

    One that has taken ``budget`` seconds for a job is not run again: then its only run counts, be
    it that which was to warm up.
    """

    def __init__(
        self, here: Stage, places: Mapping[Way, Place], budget: float = 1e9, warm_up: int = 1
    ) -> None:
        self._here = here
        self._places = places
        self._budget = budget
        self._warm_up = warm_up
        self._seconds: dict[tuple[str, str], list[float]] = {}
        self._last: dict[tuple[str, str], Sample] = {}
        self._untried: dict[tuple[str, str], str] = {}

    def _sample(self, way: Way, job: str) -> Sample:
        key = (way.name, job)
        seconds = self._seconds.setdefault(key, [])
        if key in self._untried:
            return {}
        if sum(seconds) > self._budget:
            seconds.append(0.0)
            return self._last[key] if len(seconds) == 1 + self._warm_up else {}
        place = self._places[way]
        result = way.run(self._here, place, ["/srv/jobs.sh", *job.split()], TIMEOUT)
        if result.returncode or not result.stdout.strip().isdigit():
            self._untried[key] = reason(result, place)
            return {}
        seconds.append(result.seconds)
        self._last[key] = {QUANTITY: int(result.stdout) / 1e6}
        return self._last[key]

    def failures(self, job: str) -> dict[str, str]:
        """Return which contenders could not do a job, and what each said."""
        return {name: said for (name, one), said in self._untried.items() if one == job}

    def measure(self, job: str, rounds: int) -> Series:
        """Measure one job, which may have arguments after spaces."""
        contenders = [Contender(way.name, partial(self._sample, way, job)) for way in self._places]
        series = interleave(job, "s", contenders, rounds, warm_up=self._warm_up)
        series.failures = self.failures(job)
        return series


def furnish(here: Stage, place: Place) -> Place:
    """Put the jobs into a tree."""
    path = os.path.join(place.root, "srv", "jobs.sh")
    shutil.copy(os.path.join(HERE, "jobs.sh"), path)
    here.user.give(path)
    return place


def in_memory(here: Stage) -> None:
    """Put the trees onto a tmpfs, in a mount namespace of the program's own."""
    mount = ["mount", "-t", "tmpfs", "-o", "mode=755,size=90%", "tmpfs", here.trees.directory]
    subprocess.run(mount, check=True)


def leave_memory(here: Stage) -> None:
    """Take that tmpfs away."""
    subprocess.run(["umount", "--lazy", here.trees.directory], check=False)


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
    engines = [engine(words) for words in arguments.engine or ("notify", "thorough")]
    with stage() as here:
        in_memory(here)
        try:
            ways = [REAL_ROOT, *engines, *([] if arguments.alone else installed(here, OTHERS))]
            archive = debian_archive(RECIPE)
            work = Work(here, {way: furnish(here, way.place(here, archive)) for way in ways})
            names = [way.name for way in ways]
            measured = [
                report.add(work.measure(job, arguments.rounds)) for job in arguments.job or JOBS
            ]
        finally:
            leave_memory(here)
    print(f"\n| work | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}")
    print("\n".join(row(series, names) for series in measured))
    for series in measured:
        for name, said in series.failures.items():
            print(f"{name}: {series.title}: {said}")
    report.close()


if __name__ == "__main__":
    main()
