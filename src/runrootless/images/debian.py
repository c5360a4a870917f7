"""A minimal Debian, made by mmdebstrap(1), as if it were an image of one layer.

mmdebstrap is root under ``runrootless emulate``, and its tar is unpacked as any other: so all
owners and device nodes are kept beside the new root file system, and not for the host.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile

from runrootless.errors import Error
from runrootless.images.rootfs_tar import image_of
from runrootless.linux.process import set_parent_death_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from runrootless.images.image import Image, Platform

_ARCHITECTURES = {"386": "i386", "arm": "armhf", "ppc64le": "ppc64el"}
_SAID = 2000


def debian_image(suite: str, mirror: str, platform: Platform) -> Image:
    """Return the image of a suite, from the mirror that mmdebstrap takes where none is given.

    It is made while it is unpacked. Raises Error where mmdebstrap is not there.
    """
    program = shutil.which("mmdebstrap")
    if program is None:
        raise Error(f"debian:{suite} takes mmdebstrap: apt-get install mmdebstrap")
    architecture = _ARCHITECTURES.get(platform.architecture, platform.architecture)
    command = [os.path.abspath(sys.argv[0]), "emulate", "--", program, "--mode=root"]
    command += ["--variant=minbase", "--format=tar", f"--architectures={architecture}", suite, "-"]
    if mirror:
        command.append(mirror)
    output = _Output(command)
    return image_of(f"debian:{suite}", platform, output.open, output.check)


class _Output:
    """What a command prints, which is begun at once."""

    def __init__(self, command: list[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            preexec_fn=lambda: set_parent_death_signal(signal.SIGTERM),
        )

    def open(self) -> BinaryIO:
        """Return it as a file, which is read once."""
        assert self._process.stdout is not None
        return os.fdopen(os.dup(self._process.stdout.fileno()), "rb", buffering=0)

    def check(self) -> None:
        """Wait for the end of the command, of which nothing more is read.

        Raises Error with what it has said, where it has failed.
        """
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._process.wait():
            self._errors.seek(0)
            said = self._errors.read().decode("utf-8", "replace").splitlines()
            # Of mmdebstrap's and apt's many lines those that say what is wrong.
            wrong = [line for line in said if line.startswith(("E: ", "Err:", "runrootless"))]
            reason = " ".join(" ".join(wrong or said[-3:]).split())
            raise Error(f"mmdebstrap failed: {reason[:_SAID]}")
