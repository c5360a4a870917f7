"""What the fast path of a container is told: ``struct state`` of native/fast.c, in its file.

It is imported by the command line: nothing that costs start-up time belongs here.
"""

from __future__ import annotations

import os
import sys

PATH = "/dev/runrootless/fast.so"
"""Where a container has the object."""

MARK = b"runrootless fast"
"""What stands before the number in the file."""

PLACEHOLDER = 0x9C0F1E5B_D372A846
"""What stands for the number in a filter that is made when the package is built."""

_NUMBER_OFFSET = 16
_DEVICE_OFFSET = 24
_CAPABILITIES_OFFSET = 32
_FILES_OFFSET = 40
_WORD = 8


def numbered(image: bytes, number: int) -> bytes:
    """Return the object with the number that lets its calls through. Raises ValueError."""
    start = image.index(MARK) + _NUMBER_OFFSET
    return image[:start] + _packed(number) + image[start + _WORD :]


def numbered_filter(program: bytes, number: int) -> bytes:
    """Return a filter that lets calls with this number through."""
    for shift in (0, 32):
        # The two halves are compared one by one, by an instruction each.
        before, after = (_half(value >> shift) for value in (PLACEHOLDER, number))
        program = program.replace(before, after)
    return program


class FastState:
    """Tells the objects in a container's programs; ``file`` is a descriptor of their file.

    What is written is seen by all that run. Any method may raise OSError.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        status = os.fstat(file)
        self.place = status.st_dev, status.st_ino
        """st_dev and st_ino of the file."""
        self._start = os.pread(file, status.st_size, 0).index(MARK)

    def begin(self, device: int, capabilities: int) -> None:
        """Let them answer for files on a device, which carry their records.

        ``capabilities`` are those that the container's first process may have, a bit set.
        """
        self._write(_CAPABILITIES_OFFSET, _packed(capabilities))
        self._write(_DEVICE_OFFSET, _packed(device))

    def stop(self) -> None:
        """Let them leave all to the agent, from the next call on and for good."""
        self._write(_DEVICE_OFFSET, _packed(0))

    def tell(self, files: bytes) -> None:
        """Say which files are not what they carry: ``struct apart`` of native/loop_answers.h."""
        self._write(_FILES_OFFSET, files)

    def _write(self, offset: int, data: bytes) -> None:
        os.pwrite(self.file, data, self._start + offset)


def _packed(value: int) -> bytes:
    return value.to_bytes(_WORD, sys.byteorder)


def _half(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, sys.byteorder)
