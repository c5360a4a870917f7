"""Watches for calls that hang, and starts other threads in place of those that are in them.

A call hangs in a file system that does not answer (FUSE, NFS), or in memory that another
process has to fill (userfaultfd(2)). Its thread is lost until then; all others go on. While
there are no calls, nothing is watched: the thread that takes a call wakes this (``Activity``).
"""

from __future__ import annotations

import time

from runrootless.agent.crew import Crew, Member
from runrootless.agent.loop import Activity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from runrootless.agent.waiting import Waiting

INTERVAL = 0.05
"""Seconds between two looks. A call that is there at both of them hangs, for all one knows."""

LIMIT = 256
"""How many threads may hang. With more, a new worker is to take the place of this one."""

_QUIET_LOOKS = 5
_AT_ONCE = 64
# A server of files in the container that makes calls itself takes one more thread for each of
# its answers: a thread that was added stays for a while.
_SPARE = 8
_SECONDS = 10.0


class CrowdedError(Exception):
    """Too many threads hang."""


class Watch:
    """Watches over the threads of one worker; to be called by one thread.

    ``tell`` is called when the first of them hangs, and when none does any more.
    """

    def __init__(
        self,
        activity: Activity,
        crews: Collection[Crew],
        waiting: Waiting,
        tell: Callable[[bool], None],
    ) -> None:
        self._activity = activity
        self._crews = crews
        self._waiting = waiting
        self._tell = tell
        self._hangs = False
        self._quiet = 0
        self._next = 0.0

    def look(self) -> float | None:
        """Look at all threads, if it is time, and call others in where all of a crew are at work.

        Return when to call this next, in seconds; None is when ``Activity.wakes`` says. Raises
        CrowdedError.
        """
        if self._activity.asleep:
            return None
        now = time.monotonic()
        if now < self._next:
            return self._next - now
        self._next = now + INTERVAL
        self._quiet = 0 if self._look(now) else self._quiet + 1
        if self._quiet < _QUIET_LOOKS:
            return INTERVAL
        self._activity.fall_asleep()
        if self._look(now):
            # Begun before it could be seen that nobody looks.
            self._quiet = 0
            self._activity.stay_awake()
            return INTERVAL
        return None

    def _look(self, now: float) -> bool:
        """Return whether there is something that may yet turn out to hang."""
        is_busy = False
        hanging = 0
        for crew in list(self._crews):
            crew.adapt()
            idle, stuck = 0, 0
            for member in list(crew.members):
                is_idle, is_new = _look_at(member)
                idle += is_idle
                is_busy = is_busy or is_new
                stuck += member.stuck
            hanging += stuck
            if stuck and not idle:
                crew.wanted = min(max(crew.wanted, 1 + stuck), _SPARE)
                crew.expires = now + _SECONDS
                if crew.start(min(max(1, stuck), _AT_ONCE)):
                    is_busy = True
            elif crew.wanted > 1 and now > crew.expires:
                crew.wanted = 1
        if (hanging > 0) != self._hangs:
            self._hangs = hanging > 0
            self._tell(self._hangs)
        if hanging > LIMIT:
            raise CrowdedError
        return self._look_at_runners() or is_busy

    def _look_at_runners(self) -> bool:
        """Do the same with those that carry on calls which have waited."""
        runners = list(self._waiting.runners)
        is_busy, all_hang = False, bool(runners)
        for runner in runners:
            at = runner.at
            if at is None or at is not runner.seen:
                all_hang = False
                is_busy = is_busy or at is not None
            runner.seen = at
        if all_hang:
            self._waiting.take_over()
        return is_busy or all_hang


def _look_at(member: Member) -> tuple[bool, bool]:
    """Return whether a thread has no call, and whether it has one that it had not before."""
    call = bytes(member.slot.identifier)
    if not any(call):
        member.seen, member.stuck = b"", False
        return True, False
    if call != member.seen:
        member.seen, member.stuck = call, False
        return False, True
    if not member.stuck:
        member.stuck = True
        member.slot.stuck[0] = 1
    return False, False
