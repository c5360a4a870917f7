"""Making the bundle's devices in a container, before its first program begins."""

from __future__ import annotations

import os

from runrootless.agent.confinement import confine_worker, use_permitted
from runrootless.containers.background import said_by_child
from runrootless.emulation.files.furnishing import Node
from runrootless.errors import Error
from runrootless.linux.mounts import mounted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from runrootless.agent.log import Log
    from runrootless.agent.views import Views
    from runrootless.emulation.emulator import Emulator

_PATH_SHOWN = 320
"""How much of a path goes into an error, in characters."""


def furnish(
    devices: Sequence[Mapping[str, Any]],
    views: Views,
    emulator: Emulator,
    after_joining: Callable[[], None],
    log: Log,
) -> None:
    """Make the devices, as ``bundle.devices`` has them, in a child that joins the container.

    ``after_joining`` is called there when paths lead into the container. Raises Error.
    """

    def make_all() -> str:
        try:
            _furnish_here(devices, views, emulator, after_joining)
        except OSError as error:
            path = error.filename
            if path and len(path) > _PATH_SHOWN:
                path = f"{path[:_PATH_SHOWN]}..."
            what = f"make the device {path}" if path else "make devices"
            return f"cannot {what}: {error.strerror}"
        except BaseException as error:
            log.exception("making devices", error)
            return "cannot make devices: see --log"
        return ""

    problem, status = said_by_child(make_all)
    if os.WIFSIGNALED(status):
        raise Error(f"cannot make devices: signal {os.WTERMSIG(status)} has ended what does")
    if problem or status:
        raise Error(problem or "cannot make devices: what does has failed")


def _furnish_here(
    devices: Sequence[Mapping[str, Any]],
    views: Views,
    emulator: Emulator,
    after_joining: Callable[[], None],
) -> None:
    use_permitted()
    outside = {device for _, device, _ in mounted()}
    views.join()
    confine_worker()
    after_joining()
    shown: list[Node] = []
    nodes: list[Node] = []
    for device in devices:
        node = Node(**{name: device[name] for name in device if name != "bound"})
        (shown if device["bound"] else nodes).append(node)
    emulator.furnish(nodes, shown, outside)
