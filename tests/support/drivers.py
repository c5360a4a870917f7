"""Programs that answer line by line, on real root's side and in a container."""

import json
import select
import subprocess
from pathlib import Path
from typing import Any

CALLS = "driver_calls.py"
"""What all drivers import."""

PATIENCE = 120
"""Seconds in which an answer must come."""


def put_driver(driver: Path, root: str) -> list[str]:
    """Put a driver into a root file system, with what it imports; return the new files."""
    paths = []
    for source in (driver, driver.with_name(CALLS)):
        path = f"{root}/{source.name}"
        Path(path).write_text(source.read_text())
        paths.append(path)
    return paths


class Driver:
    """The driver of one side, kept running."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def carry_out(self, calls: Any) -> Any:
        """Return what came of calls, both as JSON has them."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(calls) + "\n")
        self.process.stdin.flush()
        # Nothing is left in the file's own buffer: each answer is one line.
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready, f"no answer for {PATIENCE} s"
        line = self.process.stdout.readline()
        assert line, f"the driver ended: {self.process.wait()}"
        return json.loads(line)

    def close(self) -> None:
        """Let it end, and fail unless it does so as it should."""
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(timeout=30) == 0
