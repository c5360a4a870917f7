"""How much memory the agent of one container takes, at first and after many notifications.

That is two processes, the supervisor and its worker, which share most of theirs.

Pss is the proportional set size: pages shared with n other processes count 1/n.
Other Pythons that run at the same time share the interpreter's code with the
agent, so the memory of its own (private pages) and all of it (Rss) stand beside.
"""

import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.measure import Contender, Report, Sample, interleave, parser
from bench.stage import COMMAND, Stage, build_probe, debian_archive, stage
from support.agents import agents
from support.bundles import Bundle
from support.processes import eventually

NOTIFICATIONS = 100_000
TARGET = 12.0


def memory(pid: int) -> dict[str, float]:
    """Return Pss, private and resident memory of a process, in MiB."""
    kibibytes = {}
    with open(f"/proc/{pid}/smaps_rollup") as file:
        next(file)
        for line in file:
            key, value, *_ = line.split()
            kibibytes[key.rstrip(":")] = int(value)
    private = kibibytes["Private_Clean"] + kibibytes["Private_Dirty"]
    return {
        "Pss": kibibytes["Pss"] / 1024,
        "private": private / 1024,
        "Rss": kibibytes["Rss"] / 1024,
    }


def measure(here: Stage, bundle: Bundle) -> Sample:
    """Start a container, raise notifications in it, and look at its agent."""
    command = here.runrootless.command("run", "--bundle", bundle.path, here.runrootless.new_id())
    read, write = os.pipe()
    process = here.user.start(command, stdin=read, stdout=subprocess.PIPE, stderr=None)
    os.close(read)
    assert process.stdout is not None
    taken: dict[str, float] = {}
    for word, moment in (("ready", "at the start"), ("done", f"after {NOTIFICATIONS:,}")):
        line = process.stdout.readline()
        assert line == f"{word}\n", f"the probe said {line!r}"
        both = agents(here.user.account)
        assert len(both) == 2
        for pid in both:
            for kind, value in memory(pid).items():
                taken[f"{kind} {moment}"] = taken.get(f"{kind} {moment}", 0.0) + value
        os.write(write, b"\n")
    os.close(write)
    assert process.wait(60) == 0
    eventually(lambda: not agents(here.user.account), "the end of the agent")
    return taken


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__ or "", rounds=3).parse_args()
    report = Report("memory", COMMAND, arguments.json)
    with stage() as here:
        directory, root = here.rootless_copy(debian_archive("debian"))
        build_probe(os.path.join(root, "srv", "probe"))
        bundle = here.bundle(directory, root, ["/srv/probe", "raise", str(NOTIFICATIONS)])
        ways = [Contender("agent", lambda: measure(here, bundle))]
        series = report.add(interleave("memory of the agent", "MiB", ways, arguments.rounds))
        for quantity in series.quantities():
            if quantity.startswith("Pss"):
                report.judge(quantity, series.median("agent", quantity), TARGET, " MiB")
    report.close()


if __name__ == "__main__":
    main()
