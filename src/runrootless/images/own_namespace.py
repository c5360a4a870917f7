"""Reading a root file system with the rights that its container's root has over it.

A file may have a mode that keeps its owner out, and capabilities that only who is in a
user namespace may see as the container does. So what reads is a process of its own, in a
user namespace in which the caller is root: user_namespaces(7). Where there are none it goes
without, and ``read_tree`` changes modes for the time of reading.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from runrootless.errors import Error, one_line
from runrootless.linux.namespaces import become_root
from runrootless.linux.process import set_parent_death_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def call(work: Callable[[], Any]) -> Any:
    """Call ``work`` in such a process, whose working directory is /proc; return its result.

    That has to be what JSON can hold. Descriptors that are open here are open there. Raises
    ``Error`` for what ``work`` raises.
    """
    _flush()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        _work(work, read, write)
    os.close(write)
    try:
        with open(read, "rb") as pipe:
            answer = pipe.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        status = os.waitpid(child, 0)[1]
    if status or not answer:
        raise Error("the process that reads the root file system has ended before its work has")
    kind, value = json.loads(answer)
    if kind == "error":
        raise Error(value)
    return value


def _work(work: Callable[[], Any], read: int, write: int) -> None:
    code = 1
    try:
        os.close(read)
        set_parent_death_signal(signal.SIGKILL)
        if os.geteuid():
            try:
                become_root()
            except OSError:
                # Then it goes without.
                pass
        os.chdir("/proc")
        try:
            answer: tuple[str, Any] = "result", work()
        except Exception as error:
            answer = "error", one_line(error)
        with open(write, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
        code = 0
    finally:
        _flush()
        os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # None where the caller has closed the descriptor.
        if stream is not None:
            stream.flush()
