"""All of what runrootless costs, in one run: jobs, calls, starts, memory, and curves.

Each part is that of a benchmark of its own, with the same contenders in all of them. The figures
go to a JSON file after each series; figures.py makes tables and pictures of it.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench import apt_install, memory, stat, work
from bench.measure import Contender, Report, Sample, interleave, parser
from bench.running import QUANTITY, idle, running
from bench.stage import COMMAND, Stage, build_probe, debian_archive, stage
from bench.start import UNIFIED, Stopwatch, as_user, is_unified, starts
from bench.ways import (
    CRUN,
    OLDER,
    OTHERS,
    REAL_ROOT,
    RUNC,
    Place,
    Runtime,
    Way,
    engine,
    installed,
    reason,
)
from support.processes import Result

FIGURES = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs/performance/figures.json"
)
EMULATING = (
    engine("notify", "runrootless"),
    engine("notify --fast-path on", "with the fast path"),
    engine("thorough"),
    OLDER,
)
CALLERS = ("1", "2", "4", "8", "16", "32", "64")
PROGRAMS = ("find-in", "du-in", "tar-in")
FILES = (1_000, 10_000, 100_000)
MILLION = 1_000_000
# Files of a directory of the trees of the curves.
FULL = 100
# Seconds that a contender may take for a job, in all rounds.
BUDGET = 6.0
TIMEOUT = 600.0


class Tries:
    """Runs what may fail. What has failed once is not tried again."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}

    def sample(
        self, way: Way, place: Place, run: Callable[[], Result], read: Callable[[Result], Sample]
    ) -> Sample:
        """Return what was measured; nothing where it failed."""
        if way.name in self.failures:
            return {}
        result = run()
        if result.returncode:
            self.failures[way.name] = reason(result, place)
            return {}
        return read(result)


class Performance:
    """The parts. Each adds its series to the report, unless they are there already."""

    def __init__(self, here: Stage, report: Report, arguments: argparse.Namespace) -> None:
        self._here = here
        self._report = report
        self._arguments = arguments
        self._rounds: int = arguments.rounds
        self._warm_up = 0 if arguments.quick else 1
        self._ways = [REAL_ROOT, *EMULATING, *installed(here, (RUNC, *OTHERS))]
        # That of the jobs: fakeroot has to be in it.
        archive = debian_archive(work.RECIPE)
        self._place = work.furnish(here, Place(*here.rootless_copy(archive)))
        self._oracle = Place(*here.oracle_copy(archive))

    def _starting(self) -> list[Way]:
        others = [way for way in self._ways if way not in (REAL_ROOT, RUNC, *EMULATING)]
        return [*installed(self._here, (RUNC, CRUN)), *EMULATING, *others]

    def _at(self, way: Way) -> Place:
        return self._oracle if way is REAL_ROOT else self._place

    def start(self) -> None:
        """Measure the start and the end of a container of /bin/true."""
        if self._report.has("start"):
            return
        here, tries = self._here, Tries()
        ways = self._starting()
        for way in ways:
            run = partial(way.run, here, self._place, ["/bin/true"], TIMEOUT)
            tries.sample(way, self._place, run, _nothing)
        able = [way for way in ways if way.name not in tries.failures]
        found = starts(here, Stopwatch(here), able, self._place)
        self._add_times("start", found, ways, tries)

    def execute(self) -> None:
        """Measure ``exec`` of /bin/true in a container that runs already."""
        if self._report.has("exec"):
            return
        here, tries, stopwatch = self._here, Tries(), Stopwatch(self._here, alone=False)
        ways = [way for way in self._starting() if isinstance(way, Runtime)]
        found = []
        with ExitStack() as stack:
            for way in ways:
                name, started = stack.enter_context(running(here, way, self._place))
                command = way.execute(name, ["/bin/true"])
                if started.returncode:
                    tries.failures[way.name] = reason(started, self._place)
                    continue
                tries.sample(way, self._place, partial(here.user.run, command), _nothing)
                if way.name not in tries.failures:
                    found.append(Contender(way.name, partial(stopwatch.time, command)))
            self._add_times("exec", found, ways, tries)

    def _add_times(
        self, title: str, found: Sequence[Contender], ways: Sequence[Way], tries: Tries
    ) -> None:
        # They are short: more rounds cost little.
        rounds = 5 * self._rounds
        series = as_user(self._here, lambda: interleave(title, "ms", found, rounds, warm_up=1))
        series.names = [way.name for way in ways]
        series.failures = tries.failures
        self._report.add(series)

    def memory(self) -> None:
        """Measure the agent's memory, and what it does while its container sleeps."""
        here = self._here
        if not self._report.has("memory of the agent"):
            build_probe(os.path.join(self._place.root, "srv", "raise"))
            words = ["/srv/raise", "raise", str(memory.NOTIFICATIONS)]
            bundle = here.bundle(here.trees.new_directory("raise", for_user=True), "", words)
            bundle.change(lambda config: config["root"].update(path=self._place.root))
            ways = [Contender("runrootless", lambda: memory.measure(here, bundle))]
            self._report.add(interleave("memory of the agent", "MiB", ways, self._rounds))
        if not self._report.has("idle agent"):
            seconds = 1.0 if self._arguments.quick else 5.0
            ways = [
                Contender(way.name, partial(idle, here, way, self._place, seconds))
                for way in EMULATING
            ]
            series = self._report.add(interleave("idle agent", "ms", ways, 1))
            for way in EMULATING:
                what = f"agent of an idle container ({way.name}), of {seconds:g} s"
                self._report.judge(what, series.median(way.name, QUANTITY), 0, " ms")

    def calls(self) -> None:
        """Measure single calls, by one caller and by many at once."""
        if self._report.has("one call"):
            return
        # Not a static one: the fast path, and fakeroot, are preloaded.
        for place in (self._place, self._oracle):
            build_probe(os.path.join(place.root, "srv", "probe"), static=False)
        tries = Tries()
        command = ["/srv/probe", "time", "0.02" if self._arguments.quick else "0.05", *CALLERS]
        ways = []
        for way in self._ways:
            run = partial(way.run, self._here, self._at(way), command, TIMEOUT)
            ways.append(
                Contender(way.name, partial(tries.sample, way, self._at(way), run, stat.sample))
            )
        series = interleave("one call", "µs", ways, self._rounds)
        series.failures = tries.failures
        self._report.add(series)

    def curves(self) -> None:
        """Measure programs over trees of more and more files, which all contenders share."""
        sizes = [*FILES[: 2 if self._arguments.quick else None]]
        sizes += [MILLION] if self._arguments.million else []
        measured = work.Work(
            self._here, dict.fromkeys(self._ways, self._place), BUDGET, self._warm_up
        )
        for size in sizes:
            jobs = [f"{program} {size}" for program in PROGRAMS]
            missing = [job for job in jobs if not self._report.has(job)]
            if missing:
                _grow(self._here, self._place.root, size)
            for job in missing:
                self._report.add(measured.measure(job, self._rounds))

    def apt(self) -> None:
        """Measure the installation of seven packages, each time in a fresh tree."""
        if self._report.has("apt"):
            return
        tries = Tries()
        tree = apt_install.archive()
        ways = [
            Contender(way.name, partial(self._installation, tries, tree, way)) for way in self._ways
        ]
        series = interleave("apt", "s", ways, 1 if self._arguments.quick else self._rounds)
        series.failures = tries.failures
        self._report.add(series)

    def _installation(self, tries: Tries, tree: str, way: Way) -> Sample:
        if way.name in tries.failures:
            return {}
        place = way.place(self._here, tree)
        taken, result = apt_install.install(self._here, way, place)
        self._here.trees.discard(place.directory)
        time = {work.QUANTITY: taken.get(apt_install.INSTALLATION, 0.0)}
        return tries.sample(way, place, lambda: result, lambda _: time)

    def jobs(self) -> None:
        """Measure jobs over trees of many files, each contender in a tree of its own."""
        jobs = [job for job in self._arguments.job or work.JOBS if not self._report.has(job)]
        if not jobs:
            return
        here, archive = self._here, debian_archive(work.RECIPE)
        places = {way: work.furnish(here, way.place(here, archive)) for way in self._ways}
        measured = work.Work(here, places, BUDGET, self._warm_up)
        for job in jobs:
            self._report.add(measured.measure(job, self._rounds))


def _nothing(_: Result) -> Sample:
    return {}


def _grow(here: Stage, root: str, files: int) -> None:
    """Make a tree of so many files of one line, which belong to the user."""
    for number in range(files):
        directory = os.path.join(root, "srv", "curve", str(files), f"d{number // FULL}")
        if number % FULL == 0:
            os.makedirs(directory)
        with open(os.path.join(directory, f"f{number}"), "w") as file:
            file.write(f"{number}\n")
    owner = f"{here.user.account.uid}:{here.user.account.gid}"
    subprocess.run(["chown", "-R", owner, os.path.join(root, "srv", "curve")], check=True)


PARTS = ("start", "execute", "memory", "calls", "curves", "apt", "jobs")


def main() -> None:
    """Measure, print, and write."""
    options = parser(__doc__ or "", rounds=3)
    options.set_defaults(json=FIGURES)
    options.add_argument("--part", action="append", choices=PARTS, help="default: all")
    options.add_argument("--job", action="append", choices=list(work.JOBS), help="default: all")
    options.add_argument("--quick", action="store_true", help="one round, and small trees")
    options.add_argument("--million", action="store_true", help="also trees of 1,000,000 files")
    options.add_argument("--resume", action="store_true", help="keep what the JSON file has")
    options.add_argument("--note", default="", help="what to say with the figures")
    options.add_argument("--in-namespace", action="store_true", help="used by the program itself")
    arguments = options.parse_args()
    if not arguments.in_namespace:
        # The tmpfs is to be seen here only, and goes with the program.
        again = [sys.executable, *sys.argv, "--in-namespace"]
        script = f'{"true" if is_unified() else UNIFIED}; exec "$@"'
        command = ["unshare", "--mount", "--propagation=slave", "sh", "-c", script, "sh", *again]
        raise SystemExit(subprocess.run(command).returncode)
    if arguments.quick:
        arguments.rounds = 1
    os.makedirs(os.path.dirname(os.path.abspath(arguments.json)), exist_ok=True)
    report = Report("performance", COMMAND, arguments.json)
    report.note(arguments.note)
    if arguments.resume:
        report.resume()
    with stage() as here:
        work.in_memory(here)
        try:
            performance = Performance(here, report, arguments)
            for part in arguments.part or PARTS:
                getattr(performance, part)()
        finally:
            work.leave_memory(here)
    report.close()


if __name__ == "__main__":
    main()
