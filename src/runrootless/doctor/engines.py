"""Which engines work here."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from runrootless.doctor.finding import NO, OK, Finding

_SECONDS = 20
# What real root sees of it.
_SCRIPT = "id -u && touch file && chown 1:2 file && stat -c %u:%g file"
_ANSWER = "0\n1:2\n"


def notify() -> Finding:
    """Emulate root for a shell that gives a file away."""
    name = "engine notify"
    with tempfile.TemporaryDirectory() as directory:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "runrootless", "emulate", "--", "/bin/sh", "-c", _SCRIPT],
                cwd=directory,
                env={**os.environ, "XDG_DATA_HOME": directory},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Finding(name, NO, f"emulating root for a shell: {error}")
    if done.stdout == _ANSWER:
        return Finding(name, OK, "emulated root for a shell that gave a file away")
    last = (done.stderr.strip() or f"it printed {done.stdout!r}").split("\n")[-1]
    return Finding(name, NO, f"emulating root for a shell: {last.removeprefix('runrootless: ')}")
