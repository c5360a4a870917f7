"""Which engines work here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

from runrootless.doctor.finding import INFO, NO, OK, Finding

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
    with tempfile.TemporaryDirectory() as directory:
        try:
            done = subprocess.run(
                [*command, "/bin/sh", "-c", script],
                cwd=directory,
                env={**os.environ, "XDG_DATA_HOME": directory},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Finding(name, NO, f"emulating root for a shell: {error}")
    if done.stdout == answer:
        return Finding(name, OK, success)
    last = (done.stderr.strip() or f"it printed {done.stdout!r}").split("\n")[-1]
    return Finding(name, NO, f"emulating root for a shell: {last.removeprefix('runrootless: ')}")
