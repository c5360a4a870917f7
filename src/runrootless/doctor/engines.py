"""Which engines work here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

from runrootless.doctor.finding import INFO, NO, OK, Finding
from runrootless.errors import one_line

_SECONDS = 20
# Each with what real root sees of it.
_GIVE_AWAY = ("id -u && touch file && chown 1:2 file && stat -c %u:%g file", "0\n1:2\n")
_ASK = ("id -u", "0\n")


def notify() -> Finding:
    """Emulate root for a shell that gives a file away."""
    return _try("notify", *_GIVE_AWAY, "emulated root for a shell that gave a file away")


def proot() -> Finding:
    """Emulate root for a shell by a PRoot that is there."""
    if "RUNROOTLESS_PROOT" not in os.environ and shutil.which("proot") is None:
        return Finding("engine proot", INFO, "PRoot is not installed: it would be downloaded")
    return _try("proot", *_ASK, "emulated root for a shell")


def _try(engine: str, script: str, answer: str, success: str) -> Finding:
    name = f"engine {engine}"
    command = [sys.executable, "-m", "runrootless", "emulate", "--engine", engine, "--"]
    try:
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run(
                [*command, "/bin/sh", "-c", script],
                cwd=directory,
                env={**os.environ, "XDG_DATA_HOME": directory},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
    except subprocess.TimeoutExpired:
        return Finding(name, NO, f"emulating root for a shell: no answer within {_SECONDS} s")
    except OSError as error:
        return Finding(name, NO, f"emulating root for a shell: {one_line(error)}")
    if done.stdout == answer:
        return Finding(name, OK, success)
    remedy = ""
    if engine == "proot" and os.statvfs(tempfile.gettempdir()).f_flag & os.ST_NOEXEC:
        remedy = f"PRoot executes a file of its own there: remount {tempfile.gettempdir()} exec"
    return Finding(name, NO, f"emulating root for a shell: {_reason(done)}", remedy)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return the line that says why a command failed: PRoot says it first, others last."""
    lines = done.stderr.strip().split("\n")
    line = next((line for line in lines if line.startswith("proot error: ")), lines[-1])
    if line:
        return line.removeprefix("runrootless: ")
    if done.returncode < 0:
        return f"it was ended by signal {-done.returncode}"
    return f"it printed {done.stdout!r}"
