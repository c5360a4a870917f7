"""The threads that answer the notifications of one listener.

Usually that is one, which waits in the ioctl itself: asking poll(2) first takes a system
call more for each notification, and of several threads the kernel wakes all. The loop in C
answers common calls before Python sees them (``agent/loop.py``). A call may hang, in a file
system that does not answer; then another thread takes over (``agent/watch.py``).
"""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread

from runrootless.agent.ledger import NO_CALL, NOTHING
from runrootless.agent.loop import ENDED, TURN, Flag, Loop
from runrootless.agent.wake_up import WakeUp
from runrootless.emulation.call import Call
from runrootless.linux import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.agent.answers import Answers
    from runrootless.agent.ledger import Ledger, Slot
    from runrootless.agent.log import Log
    from runrootless.agent.loop import Activity
    from runrootless.agent.views import View, Views

_ANSWERED, _WAITS = Call.ANSWERED, Call.WAITS


def _is_woken_at_the_end() -> bool:
    """Return whether the ioctl that waits returns when no process is left: Linux 6.11."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)) or 0)) >= (6, 11)


class Member:
    """One thread of a crew, and where it notes its calls.

    ``seen`` is the call that it had in hand at the last look of the watch, and ``stuck`` whether
    it had the same one at the look before. ``busy`` is held while a handler runs.
    """

    __slots__ = ("busy", "loop", "seen", "slot", "stuck")

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.busy = allocate_lock()
        self.loop: Loop | None = None
        self.seen = b""
        self.stuck = False

    def is_idle(self) -> bool:
        """Return whether it waits for a notification, or is about to."""
        return self.slot.identifier == NO_CALL


class Crew:
    """The threads of one listener, which has a number. ``ended`` is called when all have ended.

    Its argument is the exception that ended a thread, or None.
    """

    def __init__(
        self,
        listener: int,
        number: int,
        ledger: Ledger,
        answers: Answers,
        views: Views,
        activity: Activity,
        log: Log,
        ended: Callable[[Crew, BaseException | None], None],
    ) -> None:
        self.listener = listener
        self.number = number
        self.members: list[Member] = []
        self.wanted = 1
        """How many threads are to wait for notifications, as far as calls do not hang."""
        self.expires = 0.0
        """Until when, as time.monotonic counts, they are more than one."""
        self._wake_up = WakeUp(listener)
        self._unusual = Flag()
        self._left: list[bytes] = []
        self._ledger = ledger
        self._answers = answers
        self._views = views
        self._activity = activity
        self._log = log
        self._ended = ended
        self._lock = allocate_lock()

    def start(self, count: int) -> int:
        """Start threads; return how many. Others calls of the crew may go on meanwhile."""
        started = 0
        for _ in range(count):
            slot = self._ledger.take(self.number)
            if slot is None:
                break
            member = Member(slot)
            with self._lock:
                self.members.append(member)
                self._unusual.set(len(self.members) > 1 or bool(self._left))
            try:
                start_new_thread(self._run, (member,))
            except RuntimeError:
                with self._lock:
                    self.members.remove(member)
                self._ledger.give(slot)
                break
            started += 1
        return started

    def adapt(self) -> None:
        """Have the kernel wake threads as it suits those that call now."""
        with self._lock:
            counted = [member.loop.counted() for member in self.members if member.loop is not None]
        self._wake_up.adapt(sum(calls for calls, _ in counted), sum(more for _, more in counted))

    def resume(self, calls: list[bytes]) -> None:
        """Answer calls that another worker has left, as they are noted in a slot."""
        with self._lock:
            self._left += calls
            self._unusual.set(True)

    def _run(self, member: Member) -> None:
        failure: BaseException | None = None
        try:
            self._serve(member, self._views.of_this_thread())
        except BaseException as error:
            failure = error
        with self._lock:
            if member in self.members:
                self.members.remove(member)
            is_last = not self.members
        self._ledger.give(member.slot)
        if is_last or failure is not None:
            self._ended(self, failure)

    def _serve(self, member: Member, view: View) -> None:
        listener, slot, answers = self.listener, member.slot, self._answers
        noted, notification = slot.call, slot.notification
        unusual, activity = self._unusual, self._activity
        loop = member.loop = Loop(
            listener,
            slot,
            self._ledger,
            unusual,
            activity,
            answers.readers,
            answers.apart,
            answers.programs,
            polls=not _is_woken_at_the_end(),
            root_only=answers.root_only,
            look=answers.look,
        )
        while True:
            noted[:] = NOTHING
            if unusual and (self._lets_go(member) or self._takes_over(slot)):
                if slot.identifier == NO_CALL:
                    break
                activity.wake()
            else:
                found = loop.serve()
                if found == TURN:
                    continue
                if found == ENDED:
                    break
            call = Call(notification.tobytes(), listener, slot.begun)
            _, key = seccomp.KEY.unpack(notification)
            self._handle(member, view, key, call)

    def _handle(self, member: Member, view: View, system_call: bytes, call: Call) -> None:
        """Have a call handled, and its caller told."""
        if self._unusual:
            self._let_finish(member, call.pid)
        with member.busy:
            value = self._answers.handle(view, member.slot, self.number, system_call, call)
            if value not in (_ANSWERED, _WAITS) and not call.answer(value):
                self._answers.undelivered.note(call, value)

    def _let_finish(self, member: Member, pid: int) -> None:
        """Wait until no other thread has a call of this caller in hand any more.

        One that has been interrupted, and is made again while what it did is being undone.
        """
        for other in self.members[:]:
            if other is not member and seccomp.CALL.unpack(other.slot.notification)[0] == pid:
                with other.busy:
                    pass

    def _takes_over(self, slot: Slot) -> bool:
        """Note one of the calls that another worker has left in a slot, if there are any."""
        with self._lock:
            if not self._left:
                return False
            slot.note(self._left[-1])
            # Only now: if this worker ends, the next one finds it.
            self._left.pop()
            self._unusual.set(len(self.members) > 1 or bool(self._left))
            return True

    def _lets_go(self, member: Member) -> bool:
        """Return whether a thread, which has no call, is one too many; it has left then."""
        with self._lock:
            if self._left:
                return False
            idle = sum(one.is_idle() for one in self.members)
            if idle <= self.wanted:
                return False
            self.members.remove(member)
            self._unusual.set(len(self.members) > 1)
        return True
