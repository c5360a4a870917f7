"""What modules of the standard library add to a start, of which the command imports none.

The baseline is an interpreter that imports what the command does import of it.
"""

import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.measure import Contender, Report, Sample, interleave, parser
from bench.stage import COMMAND

PYTHON = os.path.join(os.path.dirname(COMMAND), "python")
IMPORTED = "import _json, _signal, _socket, binascii, ctypes, errno, fcntl, gc, os, sys, time"
MODULES = ("argparse", "json", "re", "signal", "socket", "typing")


def start(statements: str) -> Sample:
    """Return what an interpreter takes to carry out statements, in milliseconds."""
    command = [PYTHON, "-I", "-c", statements]
    before = time.perf_counter()
    _, status, usage = os.wait4(os.posix_spawn(PYTHON, command, {}), 0)
    passed = time.perf_counter() - before
    if status:
        raise SystemExit(f"{command} has failed")
    return {"start to end": passed * 1e3, "processor": (usage.ru_utime + usage.ru_stime) * 1e3}


def contender(module: str) -> Contender:
    """Return the interpreter that imports one module more."""
    return Contender(f"and {module}", lambda: start(f"{IMPORTED}, {module}"))


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__ or "", rounds=60).parse_args()
    report = Report("imports", COMMAND, arguments.json)
    contenders = [Contender("as the command", lambda: start(IMPORTED)), *map(contender, MODULES)]
    report.add(interleave("imports", "ms", contenders, arguments.rounds, warm_up=1))
    report.close()


if __name__ == "__main__":
    main()
