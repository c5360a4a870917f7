"""How many calls fail with EINTR while signals come: as real root, and with each engine.

A static C program (``interrupted.c``) calls stat and mkdir as a user while a timer sends it
signals; shells do something simple while their background jobs end. What is printed are counts:
none of these calls fails as real root. ``--without-flag`` stands for a kernel before Linux 5.19:
there the filter does not ask for SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.measure import machine, parser, progress
from bench.stage import COMMAND, Stage, debian_archive, stage
from support.processes import Result

ENGINES = ("notify", "thorough")
TIMEOUT = 600.0
MICROSECONDS = 300
# How often a shell does something while its jobs end: these take a while to begin.
REPEATS = 20
SHELLS = ("dash", "bash", "ksh93", "mksh", "zsh")
# What is done while jobs end, and whether the shell has a trap of SIGCHLD.
LINES = {
    "cd /usr": False,
    "read x </etc/hostname": False,
    "echo x >file": False,
    "[ -d /etc ]": True,
}

Run = Callable[[Sequence[str]], Result]

# The filter of emulate, without a flag.
OF_OLD = """
import os, sys
from runrootless.engines.notify_host import enter
from runrootless.launcher import WAIT_KILLABLE_RECV, command_words
words = command_words(125, 126, 127)
before = enter("", "text", False, words, without=WAIT_KILLABLE_RECV)
os.execv(before[0], [*before, *sys.argv[1:]])
"""

_PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "interrupted.c")


class Table:
    """Counts of calls made and failed, by what was called and who answered."""

    def __init__(self, contenders: Sequence[str]) -> None:
        self._contenders = contenders
        self.made: Counter[tuple[str, str]] = Counter()
        self.failed: Counter[tuple[str, str]] = Counter()

    def add(self, what: str, contender: str, failed: int, made: int) -> None:
        """Take in what one run has counted."""
        self.made[what, contender] += made
        self.failed[what, contender] += failed

    def __str__(self) -> str:
        heads = dict.fromkeys(what for what, _ in self.made)
        width = max(len(what) for what in heads)
        lines = [" " * width + "".join(f"{name:>20}" for name in self._contenders)]
        for what in heads:
            line = f"{what:{width}}"
            for name in self._contenders:
                key = what, name
                cell = f"{self.failed[key]} of {self.made[key]}" if key in self.made else ""
                line += f"{cell:>20}"
            lines.append(line)
        return "\n".join(lines)

    def as_json(self) -> list[dict[str, object]]:
        """Return all counts."""
        return [
            {"what": what, "contender": name, "failed": self.failed[what, name], "made": made}
            for (what, name), made in self.made.items()
        ]


def build_probe(path: str) -> None:
    """Compile the probe, statically, so that any tree can run it."""
    subprocess.run(["gcc", "-O2", "-static", "-Wall", "-o", path, _PROBE], check=True)
    os.chmod(path, 0o755)


def call(table: Table, name: str, run: Run, rounds: int, processes: int) -> None:
    """Have one contender make calls under signals, and take in what it counts."""
    words = ["/srv/interrupted", str(MICROSECONDS), str(rounds), str(processes)]
    many = f", {processes} processes" if processes > 1 else ""
    for line in run(words).check().stdout.splitlines():
        kind, restarts, *numbers = line.split("\t")
        made, interrupted, *more = map(int, numbers)
        flags = "with SA_RESTART" if restarts == "1" else "without SA_RESTART"
        table.add(f"{kind} {flags}{many}: EINTR", name, interrupted, made)
        if more:
            table.add(f"{kind} {flags}{many}: EINTR, there at once", name, more[0], interrupted)
            table.add(f"{kind} {flags}{many}: EINTR, there to stay", name, more[1], interrupted)
            table.add(f"{kind} {flags}{many}: done twice", name, more[2], made)


def shell_script(line: str, with_trap: bool, rounds: int) -> str:
    """Return a script that prints how often a command fails while background jobs end."""
    return f"""
{"trap : CHLD" if with_trap else ""}
cd /srv; round=0; failed=0
while [ $round -lt {rounds} ]; do
    /bin/true & /bin/true &
    for again in {" ".join(map(str, range(REPEATS)))}; do
        {{ {line} || failed=$((failed + 1)); }} 2>/dev/null
    done
    wait
    round=$((round + 1))
done
echo $failed
"""


def in_shells(table: Table, name: str, run: Run, rounds: int) -> None:
    """Have each shell do each of the lines, and take in how often that failed."""
    for line, with_trap in LINES.items():
        for shell in SHELLS:
            prefix = "emulate sh\n" if shell == "zsh" else ""
            script = prefix + shell_script(line, with_trap, rounds)
            done = run([shell, "-c", script])
            # A shell that gives up has not counted; that is told, too.
            last = done.stdout.split()[-1:] or ["0"]
            table.add(f"{shell}: {line}", name, int(last[0]), REPEATS * rounds)


def contenders(here: Stage) -> dict[str, Run]:
    """Return who answers the calls, and how a command is run under it."""
    archive = debian_archive("shells")
    _, oracle = here.oracle_copy(archive)
    directory, rootless = here.rootless_copy(archive)
    for root in (oracle, rootless):
        build_probe(os.path.join(root, "srv", "interrupted"))
        os.chmod(os.path.join(root, "srv"), 0o777)
    bundle = here.bundle(directory, rootless, ["true"])

    def contained(engine: str) -> Run:
        def run(args: Sequence[str]) -> Result:
            path = bundle.set(args).path
            words = ["--engine", engine, "run", "--bundle", path, here.runrootless.new_id()]
            return here.runrootless(*words, timeout=TIMEOUT)

        return run

    ways: dict[str, Run] = {"real root": lambda args: here.chroot(oracle, args, TIMEOUT)}
    return ways | {engine: contained(engine) for engine in ENGINES}


def without_flag(here: Stage) -> Run:
    """Return how a command is run under a filter that does not ask for the flag."""
    place = here.trees.new_directory("interrupted", for_user=True)
    probe = os.path.join(place, "interrupted")
    build_probe(probe)

    def run(args: Sequence[str]) -> Result:
        words = [sys.executable, "-c", OF_OLD, probe, *args[1:]]
        return here.user.run(words, cwd=place, timeout=TIMEOUT)

    return run


def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "", rounds=1)
    options.add_argument("--calls", type=int, default=20_000, help="of each kind, in a round")
    options.add_argument("--jobs", type=int, default=500, help="of each shell, in a round")
    options.add_argument("--without-flag", action="store_true", help="as before Linux 5.19")
    arguments = options.parse_args()
    with stage() as here:
        facts = machine(COMMAND)
        ways = contenders(here)
        timed = dict(ways)
        if arguments.without_flag:
            timed["without the flag"] = without_flag(here)
        calls, shells = Table(list(timed)), Table(list(ways))
        for number in range(arguments.rounds):
            for name, run in timed.items():
                progress(f"round {number + 1} of {arguments.rounds}: {name}")
                call(calls, name, run, arguments.calls, 1)
                call(calls, name, run, max(1, arguments.calls // 64), 64)
            for name, run in ways.items():
                progress(f"round {number + 1} of {arguments.rounds}: shells, {name}")
                in_shells(shells, name, run, arguments.jobs)
        progress("")
    print(f"a signal every {MICROSECONDS} µs\n{calls}\n\nbackground jobs that end\n{shells}\n")
    for key, value in facts.items():
        print(f"{key}: {value}")
    if arguments.json is not None:
        content = {"machine": facts, "calls": calls.as_json(), "shells": shells.as_json()}
        with open(arguments.json, "w") as file:
            json.dump(content, file, indent=2)


if __name__ == "__main__":
    main()
