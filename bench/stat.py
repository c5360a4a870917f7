"""What one stat() costs: in a chroot of the real root, in runrootless, under PRoot.

A static C program asks for the same things again and again, in one process and in
several at once. The figures are microseconds of time that goes by, divided by the
calls of all its processes.
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.measure import Contender, Report, Sample, interleave, parser
from bench.stage import COMMAND, Stage, build_probe, debian_archive, stage
from bench.ways import PROOT, Place
from support.containers import Runrootless
from support.processes import Result

PROCESSES = ("1", "2", "8")


def sample(result: Result) -> Sample:
    """Read what the probe printed."""
    taken = {}
    for line in result.check().stdout.splitlines():
        processes, kind, microseconds = line.split("\t")
        plural = "" if processes == "1" else "es"
        taken[f"{kind}, {processes} process{plural}"] = float(microseconds)
    return taken


def _sample_of(run: Callable[[], Result]) -> Sample:
    return sample(run())


def contenders(
    here: Stage, seconds: float, with_proot: bool, beside: Sequence[str]
) -> list[Contender]:
    """Return the ways to run the probe.

    ``beside`` are the commands of other installations of runrootless.
    """
    archive = debian_archive("debian")
    command = ["/srv/probe", "time", str(seconds), *PROCESSES]
    timeout = 120 + 100 * seconds
    _, oracle = here.oracle_copy(archive)
    directory, rootless = here.rootless_copy(archive)
    for root in (oracle, rootless):
        build_probe(os.path.join(root, "srv", "probe"))
    bundle = here.bundle(directory, rootless, command)
    found = [
        Contender("real root", lambda: sample(here.chroot(oracle, command, timeout))),
        Contender("runrootless", lambda: sample(here.runrootless.run(bundle, timeout=timeout))),
    ]
    for program in beside:
        run = partial(Runrootless(here.user, program=program).run, bundle, timeout=timeout)
        found.append(Contender(program, partial(_sample_of, run)))
    if with_proot:
        place = Place(directory, rootless)
        found.append(Contender("PRoot", lambda: sample(PROOT.run(here, place, command, timeout))))
    return found


def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "", rounds=7)
    options.add_argument("--seconds", type=float, default=0.2, help="for each figure of a round")
    options.add_argument(
        "--beside", action="append", default=[], metavar="PROGRAM", help="another runrootless"
    )
    arguments = options.parse_args()
    report = Report("stat", COMMAND, arguments.json)
    with stage() as here:
        ways = contenders(
            here, arguments.seconds, PROOT.is_there(here) and not arguments.beside, arguments.beside
        )
        report.add(interleave("one system call", "µs", ways, arguments.rounds))
    report.close()


if __name__ == "__main__":
    main()
