"""Whether processes that somebody else has started can be put under emulation: ptrace(2), Yama."""

from __future__ import annotations

import os
import signal

from runrootless.doctor.finding import INFO, OK, Finding
from runrootless.linux import ptrace
from runrootless.linux.namespaces import CLONE_NEWNS, become_root

_NAME = "hook, attach"
_SCOPES = {
    "0": "kernel.yama.ptrace_scope is 0",
    "1": "kernel.yama.ptrace_scope is 1, which does not concern your own user namespaces",
    "2": "kernel.yama.ptrace_scope is 2, which does not concern your own user namespaces",
    "3": "kernel.yama.ptrace_scope is 3",
}


def tracing() -> Finding:
    """Trace a process in a user namespace of the caller's, as the hook does."""
    ready, begun = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            become_root(CLONE_NEWNS)
            os.write(begun, b"1")
            signal.pause()
        finally:
            os._exit(0)
    os.close(begun)
    try:
        if not os.read(ready, 1):
            return Finding(_NAME, INFO, "not tried: it takes a user namespace")
        try:
            ptrace.seize(child, 0)
        except OSError as error:
            remedy = "run containers by `runrootless run`, which traces nothing"
            return Finding(_NAME, INFO, f"{error.strerror}: {_how()}", remedy)
        return Finding(_NAME, OK, f"traced a process; {_how()}")
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _how() -> str:
    return _SCOPES.get(ptrace.scope(), "this kernel has no Yama")
