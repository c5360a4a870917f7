"""How often SIGINT in the first milliseconds of the command shows a traceback.

With the command, which blocks it until the interpreter has begun, and without. Each start gets
one SIGINT, at a random time of its first 30 milliseconds.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.measure import machine, parser, progress
from bench.stage import COMMAND

LONGEST = 0.030
SEED = 1
PYTHON = os.path.join(os.path.dirname(COMMAND), "python")
WAYS = {
    "the command": [COMMAND],
    "its Python script alone": [f"{COMMAND}-python"],
    "python -m runrootless": [PYTHON, "-m", "runrootless"],
}


def shows_traceback(command: list[str], delay: float) -> bool:
    """Return whether a start that is interrupted after so many seconds shows a traceback."""
    process = subprocess.Popen(
        [*command, "--help"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    return "KeyboardInterrupt" in errors


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__ or "", rounds=800).parse_args()
    if not os.access(COMMAND, os.X_OK):
        raise SystemExit(f"{COMMAND} is not there: run ./test.sh once")
    facts = machine(COMMAND)
    delays = random.Random(SEED)
    counts = dict.fromkeys(WAYS, 0)
    for number in range(arguments.rounds):
        progress(f"start {number + 1} of {arguments.rounds}")
        for name, command in WAYS.items():
            counts[name] += shows_traceback(command, delays.uniform(0, LONGEST))
    progress("")
    for name, count in counts.items():
        print(f"{name:44}{count} of {arguments.rounds}")
    for key, value in facts.items():
        print(f"{key}: {value}")
    if arguments.json is not None:
        with open(arguments.json, "w") as file:
            json.dump({"machine": facts, "tracebacks": counts}, file, indent=2)


if __name__ == "__main__":
    main()
