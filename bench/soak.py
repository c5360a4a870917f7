"""Whether the agent of a long-lived container grows: memory and side stores over many calls.

A static C program makes intercepted calls of all sorts, nearly all of them about a new file,
in the rootfs and in a tmpfs, or a new owner. The memory of the agent's processes is added up.
"""

import argparse
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.memory import memory
from bench.stage import Stage, debian_archive, stage
from support.agents import agents

_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "soak.c")


def sample(here: Stage, directory: str) -> dict[str, float]:
    """Return what the agent and the side stores take, in MiB."""
    taken = {"Pss": 0.0, "private": 0.0, "Rss": 0.0}
    for pid in agents(here.user.account):
        for kind, value in memory(pid).items():
            taken[kind] += value
    for name in (".rootfs.ownership", ".rootfs.attributes"):
        path = os.path.join(directory, name)
        taken[name] = os.path.getsize(path) / (1 << 20) if os.path.exists(path) else 0
    return taken


def main() -> None:
    """Measure and print the curve."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=5_000_000, help="intercepted calls in all")
    options.add_argument("--parts", type=int, default=50, help="how often to look")
    arguments = options.parse_args()
    with stage() as here:
        directory, root = here.rootless_copy(debian_archive("debian"))
        program = os.path.join(root, "srv", "soak")
        subprocess.run(["gcc", "-O2", "-static", "-Wall", "-o", program, _PROGRAM], check=True)
        os.chmod(program, 0o755)
        words = ["/srv/soak", str(arguments.count), str(arguments.parts)]
        bundle = here.bundle(directory, root, words)
        command = here.runrootless.command("run", "--bundle", bundle.path, "soak")
        process = here.user.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        begin = time.monotonic()
        heads = ("calls", "seconds", "Pss", "private", "Rss", "ownership", "attributes")
        print("".join(f"{head:>12}" for head in heads) + "  (MiB)")
        for line in process.stdout:
            values = sample(here, directory)
            seconds = time.monotonic() - begin
            print(
                f"{int(line):12,}{seconds:12.0f}" + "".join(f"{v:12.2f}" for v in values.values()),
                flush=True,
            )
            process.stdin.write("\n")
            process.stdin.flush()
        _, errors = process.communicate()
        print(errors, end="")
        raise SystemExit(process.returncode)


if __name__ == "__main__":
    main()
