"""The threads that answer the notifications of one listener.

As a rule that is one, which waits in the ioctl itself: asking poll(2) first takes a system
call more for each notification, and of several threads the kernel wakes all. A call may hang,
in a file system that does not answer; then another thread takes over (``agent/watch.py``).
"""

from __future__ import annotations

import os
import select
from _thread import allocate_lock, start_new_thread
from fcntl import ioctl

from runrootless.agent.ledger import INTERRUPTED, NO_CALL, NOTHING, VARIED
from runrootless.emulation.call import UNDECIDED, Call
from runrootless.linux import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.agent.answers import Answers
    from runrootless.agent.ledger import Ledger, Slot
    from runrootless.agent.log import Log
    from runrootless.agent.views import View, Views

_RECEIVE, _SEND = seccomp.RECEIVE, seccomp.SEND
_CONTINUE = seccomp.FLAG_CONTINUE
_ANSWERED, _WAITS = Call.ANSWERED, Call.WAITS
_receive = seccomp.receive
_unpack = seccomp.QUICK.unpack
_pack_into = seccomp.RESPONSE.pack_into


def _is_woken_at_the_end() -> bool:
    """Return whether who waits for a notification learns that no process is left: Linux 6.11."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)) or 0)) >= (6, 11)


class Activity:
    """Whether somebody watches over the calls; who takes one while nobody does says so.

    ``wakes`` becomes readable then. Reading the clock for each call would cost more.
    """

    def __init__(self) -> None:
        self.asleep = False
        self.wakes = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def wake(self) -> None:
        """Say that there is something to watch over."""
        if self.asleep:
            self.asleep = False
            os.eventfd_write(self.wakes, 1)


class Member:
    """One thread of a crew, and where it notes its calls.

    ``seen`` is the call that it had in hand when it was last looked at, and ``stuck`` whether
    that was so before. ``busy`` is held as long as a handler is at it.
    """

    __slots__ = ("busy", "seen", "slot", "stuck")

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.busy = allocate_lock()
        self.seen = b""
        self.stuck = False

    def is_idle(self) -> bool:
        """Return whether it waits for a notification, or is about to."""
        return self.slot.identifier == NO_CALL


class Crew:
    """The threads of one listener, which has a number. ``ended`` is called when all have ended.

    That is told with what a thread could not deal with, if it was that.
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
        self._unusual = False
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
                self._unusual = len(self.members) > 1 or bool(self._left)
            try:
                start_new_thread(self._run, (member,))
            except RuntimeError:
                with self._lock:
                    self.members.remove(member)
                self._ledger.give(slot)
                break
            started += 1
        return started

    def resume(self, calls: list[bytes]) -> None:
        """Answer calls that another worker has left, as they are noted in a slot."""
        with self._lock:
            self._left += calls
            self._unusual = True

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
        listener, activity, header = self.listener, self._activity, self._ledger.header
        slot, log = member.slot, self._log
        noted, notification, pointer = slot.call, slot.notification, slot.pointer
        quick_handlers = self._answers.quick_handlers()
        response = bytearray(seccomp.RESPONSE_SIZE)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        waits_in_poll = not _is_woken_at_the_end()
        while True:
            noted[:] = NOTHING
            if self._unusual and (self._lets_go(member) or self._takes_over(slot)):
                if slot.identifier == NO_CALL:
                    break
            elif waits_in_poll and not poll.poll()[0][1] & select.POLLIN:
                break
            elif _receive(listener, _RECEIVE, pointer) < 0:
                # The caller was killed before its notification could be read, or all are gone.
                if any(events & select.POLLHUP for _, events in poll.poll(0)):
                    break
                continue
            if activity.asleep:
                activity.wake()
            # Without a function for it, and for the answer: see emulation/quick.py.
            identifier, pid, system_call, *arguments = _unpack(notification)
            value: int | None = UNDECIDED
            if system_call in quick_handlers and not header[VARIED] and not header[INTERRUPTED]:
                try:
                    value = quick_handlers[system_call](listener, identifier, pid, *arguments)
                except OSError:
                    # The handler will meet with the same.
                    pass
                except Exception as error:
                    log.exception("a quick handler", error)
            if value == UNDECIDED:
                call = Call(notification.tobytes(), listener, slot.begun)
                self._handle(member, view, system_call, call)
                continue
            if value is None:
                _pack_into(response, 0, identifier, 0, 0, _CONTINUE)
            elif value < 0:
                _pack_into(response, 0, identifier, 0, value, 0)
            else:
                _pack_into(response, 0, identifier, value, 0, 0)
            try:
                ioctl(listener, _SEND, response)
            except OSError:
                # Interrupted by a signal, in which case the call is repeated, or killed.
                pass

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
            # Only now, lest nobody has it if this worker ends.
            self._left.pop()
            self._unusual = len(self.members) > 1 or bool(self._left)
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
            self._unusual = len(self.members) > 1
        return True
