"""Who a process is.

The identity is kept by the kernel, in the soft limit of RLIMIT_RTTIME, which is
inherited over fork and exec and which hardly anything in a container uses otherwise.
What the container sees of that limit is in ``processes.limits``.
"""

from __future__ import annotations

from _thread import allocate_lock

from runrootless.emulation.call import Call, require_valid
from runrootless.emulation.callers.credential_table import (
    INFINITY,
    CredentialTable,
    Outcome,
    is_pending,
    is_varied,
)
from runrootless.emulation.callers.credentials import (
    CAP_FSETID,
    CAP_SETGID,
    CAP_SETUID,
    ROOT,
    Credentials,
)
from runrootless.emulation.callers.executions import Executions, SetId
from runrootless.emulation.callers.makers import Makers
from runrootless.emulation.callers.threads import Threads
from runrootless.emulation.programs import Programs
from runrootless.emulation.stores.entry_file import ROOT as PAID_BY_ROOT
from runrootless.linux.capabilities import bounding_set, capabilities
from runrootless.linux.limits import RLIMIT_RTTIME, get_soft_limit, set_soft_limit
from runrootless.linux.processes import shares_user_namespace, thread_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.emulation.callers.credential_table import State


class Identity:
    """The credentials of the container's threads, and how they change.

    Any thread may call any method. Nothing is kept here that another agent could not find out.
    """

    def __init__(self, table: CredentialTable, makers: Makers, programs: Programs) -> None:
        self._makers = makers
        self._programs = programs
        self._table = table
        self._threads = Threads(table)
        self._executions = Executions(table)
        # Held while a number is changed.
        self._lock = allocate_lock()
        self.bounding = 0
        """The capabilities that the container's first process may be given."""
        self._observer: Callable[[int, Credentials], None] | None = None

    def observe(self, observer: Callable[[int, Credentials], None]) -> None:
        """Have each thread told that changes its credentials, or executes a program."""
        self._observer = observer
        self._programs.observe()

    def of(self, pid: int) -> Credentials:
        """Return the credentials of a thread; root's where it is gone or not emulated."""
        try:
            number = get_soft_limit(pid, RLIMIT_RTTIME)
        except OSError:
            return ROOT
        return self._table.decode(number) or self._look(pid, number)[0]

    def joined(self, pid: int) -> None:
        """Take note of what the container's first process ``pid`` may be given. Raises OSError."""
        self.bounding = bounding_set(pid)

    def may(self, pid: int, credentials: Credentials, capability: int) -> bool:
        """Return whether a thread, which has these credentials, has a capability.

        The kernel has to leave it as well: in the permitted set, or else in the bounding set,
        out of which execve(2) gives it back to root, though not under no_new_privs, which the
        filter takes. In a user namespace of their own processes have no more than the
        container's first one. Raises OSError where the thread is gone.
        """
        if not credentials.can(capability):
            return False
        _, held, _ = capabilities(pid)
        if not held & capability:
            held = bounding_set(pid)
        if held & ~self.bounding and _is_elsewhere(pid):
            held &= self.bounding
        return bool(held & capability)

    def may_set_group_id(self, pid: int, credentials: Credentials, group: int) -> bool:
        """Return whether a thread may let a file of a group have the set-group-ID bit.

        in_group_or_capable() in fs/attr.c. Raises OSError where the thread is gone.
        """
        return credentials.in_group(group) or self.may(pid, credentials, CAP_FSETID)

    def of_limit(self, soft: int, directory: bytes) -> tuple[Credentials, State]:
        """Return the credentials of a thread, and what else is kept of its process.

        ``soft`` is its soft limit of RLIMIT_RTTIME, and ``directory`` its directory in /proc.
        """
        found = self._table.decode(soft)
        if found is not None:
            return found, self._table.state(soft)
        outcome = self._executions.outcome(directory, soft) if is_pending(soft) else None
        if outcome is not None:
            return outcome
        base = self._table.base(soft)
        if is_varied(soft):
            base = self._threads.credentials(directory, base)
        return base, self._table.state(soft)

    def state(self, pid: int) -> State:
        """Return what is kept of a process besides its credentials. Raises OSError: ESRCH."""
        number = get_soft_limit(pid, RLIMIT_RTTIME)
        return self._look(pid, number)[1] if is_pending(number) else self._table.state(number)

    def prospects(self, pid: int) -> list[tuple[Credentials, bool]]:
        """Return what credentials a thread has, or may have in a moment, by an execve(2).

        Each with whether its process can be dumped then. Raises OSError: ESRCH.
        """
        number = get_soft_limit(pid, RLIMIT_RTTIME)
        credentials, (_, _, dumpable) = self.of_limit(number, b"%d" % pid)
        found = [(credentials, dumpable)]
        if is_pending(number):
            outcome = self._table.outcome(number)
            found.append((outcome.new, outcome.dumpable[0]))
        return found

    def set_limits(self, pid: int, soft: int, hard: int, caller: Credentials) -> None:
        """Set what RLIMIT_RTTIME a process has set itself; ``caller`` is who does it.

        In microseconds. Raises OSError: ENOMEM, ESRCH.
        """
        with self._lock:
            number = self._settle(pid)
            _, _, dumpable = self._table.state(number)
            self._set_state(pid, number, (soft, hard, dumpable), _payer(caller))

    def set_dumpable(self, pid: int, dumpable: bool) -> None:
        """Set whether a process can be dumped. Raises OSError: ENOMEM, ESRCH."""
        with self._lock:
            number = self._settle(pid)
            soft, hard, _ = self._table.state(number)
            self._set_state(pid, number, (soft, hard, dumpable), _payer(self._table.base(number)))

    def settle(self, pid: int) -> None:
        """Make what a thread is independent of what its memory is known by. Raises OSError.

        An execve(2) under way will then not change its credentials.
        """
        with self._lock:
            self._settle(pid)

    def is_marked(self, pid: int) -> bool:
        """Return whether a thread is marked as one that differs. Raises OSError: ESRCH, ENOENT."""
        number = get_soft_limit(pid, RLIMIT_RTTIME)
        return is_varied(number) and self._threads.is_marked(pid)

    def change(self, call: Call, old: Credentials, new: Credentials) -> None:
        """Give the calling thread new credentials. Raises OSError: ENOMEM, ESRCH."""
        if new == old:
            return
        require_valid(call)
        self._leave(call.pid, old, new)
        with self._lock:
            number = self._settle(call.pid)
            soft, hard, dumpable = self._table.state(number)
            state = soft, hard, dumpable and not new.is_gained_from(old)
            self._set(call.pid, number, new, state, _payer(old))
        if self._observer is not None:
            self._observer(call.pid, new)

    def change_by_exec(self, call: Call, bits: SetId | None) -> None:
        """Give the caller what an execve(2) that is let through now will make of it.

        ``bits`` are those of the file that the caller names, None where they do not count.
        Should the call fail, or execute another file, nothing of it counts. To be called
        before each execve(2) that is let through. Raises OSError: ENOMEM, ESRCH.
        """
        pid = call.pid
        if bits is None and get_soft_limit(pid, RLIMIT_RTTIME) == INFINITY:
            # Root, before and after.
            if self._observer is not None:
                self._observer(pid, ROOT)
            return
        require_valid(call)
        with self._lock:
            new = self._begin_exec(pid, bits)
        if self._observer is not None:
            self._observer(pid, new)

    def _begin_exec(self, pid: int, bits: SetId | None) -> Credentials:
        number = self._settle(pid)
        old, state = self.of_limit(number, b"%d" % pid)
        new = plain = old.after_exec(None, None)
        file, payer = (0, 0), _payer(old)
        if bits is not None:
            new = old.after_exec(bits.owner, bits.group)
            file, payer = bits.file, bits.payer
        self._leave(pid, old, new)
        is_plain = old.uids[0] == old.uids[1] and old.gids[0] == old.gids[1]
        dumpable = tuple(is_plain and not after.is_gained_from(old) for after in (new, plain))
        if is_varied(number) and thread_count(pid) == 1:
            number = self._set(pid, number, old, state, payer)
        if new == old and state[2] == dumpable[0] and not is_varied(number):
            return new
        varied = is_varied(number)
        outcome = Outcome(self._table.base(number), new, plain, (dumpable[0], dumpable[1]), file)
        check = self._executions.check(b"%d" % pid)
        # What would have been taken away must be.
        sure = varied or plain != old
        pending = self._table.encode_pending(outcome, state, varied, sure, check, payer)
        set_soft_limit(pid, RLIMIT_RTTIME, pending, INFINITY)
        return new

    def _leave(self, pid: int, old: Credentials, new: Credentials) -> None:
        """Have noted what a thread has made so far if it is to make others' files from now on."""
        if old.uids[3] != new.uids[3] or old.gids[3] != new.gids[3]:
            self._makers.note_all(pid, old)

    def _look(self, pid: int, number: int) -> tuple[Credentials, State]:
        """Return what a thread is whose number does not say it alone, and make it say so.

        Not before a program has been executed: until then it may still be.
        """
        directory = b"%d" % pid
        if is_pending(number) and self._executions.outcome(directory, number) is not None:
            try:
                with self._lock:
                    number = self._settle(pid)
            except OSError:
                # It has ended, or there is no room. The next one will try again.
                pass
        return self.of_limit(number, directory)

    def _settle(self, pid: int) -> int:
        """Return the number of a process, which is not a pending one from now on."""
        number = get_soft_limit(pid, RLIMIT_RTTIME)
        if not is_pending(number):
            return number
        found = self._executions.outcome(b"%d" % pid, number)
        if found is not None:
            return self._put(pid, number, *found)
        encode = self._table.encode_varied if is_varied(number) else self._table.encode
        settled = encode(self._table.base(number), self._table.state(number))
        set_soft_limit(pid, RLIMIT_RTTIME, settled, INFINITY)
        return settled

    def _set_state(self, pid: int, number: int, state: State, payer: int) -> None:
        encode = self._table.encode_varied if is_varied(number) else self._table.encode
        changed = encode(self._table.base(number), state, payer)
        set_soft_limit(pid, RLIMIT_RTTIME, changed, INFINITY)

    def _set(self, pid: int, number: int, new: Credentials, state: State, payer: int) -> int:
        """Give a thread new credentials, and return the new number of its process."""
        if thread_count(pid) == 1:
            return self._put(pid, number, new, state, payer)
        changed = self._threads.change(pid, number, new, state, payer)
        if changed != number:
            set_soft_limit(pid, RLIMIT_RTTIME, changed, INFINITY)
        # Not before: what is forked meanwhile would take the marks for missing.
        if not is_varied(changed):
            self._threads.clear(pid)
        return changed

    def _put(
        self, pid: int, number: int, new: Credentials, state: State, payer: int = PAID_BY_ROOT
    ) -> int:
        """Give all threads of a process new credentials, and return its new number."""
        changed = self._table.encode(new, state, payer)
        if changed != number:
            set_soft_limit(pid, RLIMIT_RTTIME, changed, INFINITY)
        if is_varied(number):
            self._threads.clear(pid)
        return changed


def _payer(caller: Credentials) -> int:
    """Return who pays for what has to be noted of a change that ``caller`` makes.

    Root, wherever the caller can be anybody.
    """
    if 0 in caller.uids[:2] or caller.permitted & (CAP_SETUID | CAP_SETGID):
        return PAID_BY_ROOT
    return caller.uids[0]


def _is_elsewhere(pid: int) -> bool:
    """Return whether a thread is in another user namespace than the container's own.

    Also where the thread cannot be looked at: it is the runtime, or gone.
    """
    try:
        return not shares_user_namespace(pid)
    except OSError:
        return True
