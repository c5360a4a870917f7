"""The rights of the agent's processes, and their protection from others."""

from __future__ import annotations

import _thread
import resource

from runrootless.linux.capabilities import capabilities
from runrootless.linux.process import (
    empty_bounding_set,
    set_capabilities,
    set_dumpable,
    set_no_new_privileges,
)
from runrootless.linux.signals import ignore_all

_STACK_SIZE = 256 * 1024
_CAP_SETPCAP = 1 << 8
# <linux/capability.h>. What the handlers take: reading and changing files whosever they are
# (CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP),
# signals (CAP_KILL), the caller's root (CAP_SYS_CHROOT), memory and descriptors
# (CAP_SYS_PTRACE), mounts and namespaces (CAP_SYS_ADMIN), limits and timer slack
# (CAP_SYS_RESOURCE, CAP_SYS_NICE).
_KEPT = (0, 1, 2, 3, 4, 5, 18, 19, 21, 23, 24, 31)
WORKER_CAPABILITIES = sum(1 << number for number in _KEPT)
"""The effective capabilities of a worker, in the container's user namespace, as bits. All others
that it has there stay permitted: where the kernel is to look at what a caller may, its thread
takes on the caller's for a moment."""


def withstand() -> None:
    """Keep signals and limits that are for other processes from ending this one.

    Its children inherit that, and nobody may look into it or them. Raises OSError.
    """
    ignore_all()
    set_dumpable(False)
    set_no_new_privileges()
    for name in ("CPU", "AS", "DATA", "RSS", "NOFILE", "FSIZE", "NPROC", "STACK", "MEMLOCK"):
        kind = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (hard, hard))
    # Those of threads. Of a size without a limit the C library makes two or eight megabytes.
    _thread.stack_size(_STACK_SIZE)


def confine_supervisor(shares_user_namespace: bool) -> None:
    """Give up what this process does not need any more, once the container is found.

    Its children get the rest from the container's user namespace, unless this process
    ``shares`` that: then they have it from here, where it is not effective. Raises OSError.
    """
    _, permitted, _ = capabilities(0)
    _empty_bounding_set(permitted)
    set_capabilities(0, permitted if shares_user_namespace else 0)


def use_permitted() -> None:
    """Make effective what ``confine_supervisor`` has left, before the container is joined."""
    _, permitted, _ = capabilities(0)
    set_capabilities(permitted, permitted)


def confine_worker() -> None:
    """Do the same for one that has joined the container. Raises OSError."""
    _, permitted, _ = capabilities(0)
    _empty_bounding_set(permitted)
    set_capabilities(permitted & WORKER_CAPABILITIES, permitted)
    # Lost on the way.
    set_dumpable(False)


def _empty_bounding_set(permitted: int) -> None:
    if permitted & _CAP_SETPCAP:
        empty_bounding_set()
