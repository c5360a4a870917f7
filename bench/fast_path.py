"""What programs that look at many files take: real root in a chroot, with and without fast path.

Each command is run by a program in the container, or the chroot, which takes the time, so that
no start of a container is part of it. Then the same for single calls (calls.c).
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.measure import Contender, Report, Sample, interleave, parser
from bench.stage import COMMAND, Stage, debian_archive, stage
from support.bundles import Bundle
from support.containers import Runrootless
from support.processes import Result

COMMANDS = {
    "du -s": "du -s /usr",
    "find -ls": "find /usr -ls",
    "ls -lR": "ls -lR /usr",
    "tar -c": "tar -c /usr",
    "chown -R": "chown -R 0:0 /usr/share",
    "lstat of all, by path": "stat_all",
}
CALLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "calls.c")
PREPARE = "touch /srv/given; chown 33:44 /srv/given; exec /srv/calls"
SCRIPT = r"""
import os, subprocess, sys, time
paths = [os.path.join(at, name) for at, _, names in os.walk("/usr") for name in names]
def stat_all():
    for path in paths:
        os.lstat(path)
for line in sys.argv[1:]:
    name, command = line.split("\t")
    begin = time.perf_counter()
    if command in globals():
        globals()[command]()
    else:
        done = subprocess.run(command.split(), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, command
    print(name, 1000 * (time.perf_counter() - begin), sep="\t")
"""


def sample(result: Result) -> Sample:
    """Read what was printed: names and times."""
    lines = (line.split("\t") for line in result.check().stdout.splitlines())
    return {name: float(taken) for name, taken in lines}


def _sample_of(run: Callable[[], Result]) -> Sample:
    return sample(run())


class Roots:
    """A root file system in both of its forms, with the program that makes single calls."""

    def __init__(self, here: Stage) -> None:
        archive = debian_archive("tools")
        _, self.oracle = here.oracle_copy(archive)
        self.directory, self.rootless = here.rootless_copy(archive)
        for root in (self.oracle, self.rootless):
            program = f"{root}/srv/calls"
            subprocess.run(["gcc", "-O2", "-Wall", "-o", program, CALLS], check=True)
            os.chmod(program, 0o755)


def contenders(
    here: Stage, roots: Roots, command: Sequence[str], beside: Sequence[str]
) -> list[Contender]:
    """Return the ways to run a command.

    ``beside`` are the commands of other installations of runrootless.
    """
    bundle = Bundle(roots.directory, roots.rootless).set(command)
    off = Runrootless(here.user, ["--fast-path", "off"])
    on = Runrootless(here.user, ["--fast-path", "on"])
    ways = [
        Contender("real root", lambda: sample(here.chroot(roots.oracle, command, 600))),
        Contender("runrootless", lambda: sample(off.run(bundle, timeout=600))),
        Contender("with fast path", lambda: sample(on.run(bundle, timeout=600))),
    ]
    for program in beside:
        run = partial(Runrootless(here.user, program=program).run, bundle, timeout=600)
        ways.append(Contender(program, partial(_sample_of, run)))
    return ways


def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "", rounds=7)
    options.add_argument(
        "--beside", action="append", default=[], metavar="PROGRAM", help="another runrootless"
    )
    arguments = options.parse_args()
    report = Report("fast path", COMMAND, arguments.json)
    with stage() as here:
        roots = Roots(here)
        here.bundle(roots.directory, roots.rootless, ["true"])
        for title, unit, command in (
            ("one call", "µs", ["sh", "-c", PREPARE]),
            ("one command", "ms", ["python3", "-c", SCRIPT, *map("\t".join, COMMANDS.items())]),
        ):
            ways = contenders(here, roots, command, arguments.beside)
            report.add(interleave(title, unit, ways, arguments.rounds, warm_up=1))
    report.close()


if __name__ == "__main__":
    main()
