"""A container that goes on: ``exec`` in it, and what its agent does while nothing happens."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.measure import Sample
from bench.stage import Stage
from bench.ways import Place, Runtime
from support.agents import agents
from support.containers import Runrootless
from support.processes import Result, eventually

QUANTITY = "processor time"
# Longer than any start on any machine.
_TIMEOUT = 60.0


@contextmanager
def running(here: Stage, way: Runtime, place: Place) -> Iterator[tuple[str, Result]]:
    """Start a container; give its name and what became of the start; delete it in the end."""
    name = Runrootless.new_id()
    started = here.user.run(way.start(here, place, name), timeout=_TIMEOUT)
    try:
        yield name, started
    finally:
        here.user.run(way.delete(name), timeout=_TIMEOUT)


def _processor_time(pids: list[int]) -> float:
    """Return the milliseconds that all threads of some processes have run."""
    nanoseconds = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                nanoseconds += int(file.read().split()[0])
    return nanoseconds / 1e6


def idle(here: Stage, way: Runtime, place: Place, seconds: float) -> Sample:
    """Return the milliseconds that the agent of a container runs while that sleeps."""
    with running(here, way, place) as (_, started):
        started.check()
        pids = eventually(lambda: agents(here.user.account), "an agent")
        # What there is to do at the start is no part of it.
        time.sleep(1)
        before = _processor_time(pids)
        time.sleep(seconds)
        taken = _processor_time(pids) - before
    eventually(lambda: not agents(here.user.account), "the end of the agent")
    return {QUANTITY: taken}
