"""The agent's processes, as /proc shows them, and what is done to them."""

import os
import signal
import threading
import time
from types import TracebackType

from support.processes import eventually
from support.users import Account

WORKER = "runrootless-agt"
SUPERVISOR = "runrootless-sup"


def named(account: Account, name: str) -> list[int]:
    """Return the process IDs of the user's processes of this name."""
    found = []
    for process in account.processes():
        try:
            with open(f"/proc/{process.pid}/comm") as file:
                if file.read().rstrip("\n") == name:
                    found.append(process.pid)
        except OSError:
            continue
    return sorted(found)


def agents(account: Account) -> list[int]:
    """Return the process IDs of all that belongs to the user's agents."""
    return named(account, SUPERVISOR) + named(account, WORKER)


def the_worker(account: Account) -> int:
    """Return the one worker that there is, once it is there."""
    (pid,) = eventually(lambda: named(account, WORKER), "a worker")
    return pid


def the_supervisor(account: Account) -> int:
    """Return the one supervisor that there is, once it is there."""
    (pid,) = eventually(lambda: named(account, SUPERVISOR), "a supervisor")
    return pid


def waited(pid: int) -> float:
    """Return the seconds that a process was ready to run and did not. Raises OSError."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[1]) / 1e9


class Killer:
    """Kills the user's worker again and again, as long as the context lasts.

    Each lives for ``interval`` seconds, not counting those in which the machine did not let it
    run: else none would ever do anything on a busy one. ``kills`` counts the workers that it
    has killed. When these are ``enough``, it makes the file ``end``.
    """

    def __init__(self, account: Account, interval: float, enough: int = 0, end: str = "") -> None:
        self.kills = 0
        self._enough = enough
        self._end_file = end
        self._account = account
        self._interval = interval
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        supervisor = 0
        seen: dict[int, float] = {}
        while not self._end.wait(self._interval):
            try:
                if not supervisor:
                    (supervisor,) = named(self._account, SUPERVISOR)
                children = f"/proc/{supervisor}/task/{supervisor}/children"
                with open(children) as file:
                    pids = [int(word) for word in file.read().split()]
                now = time.monotonic()
                seen = {pid: seen.get(pid, now - self._interval) for pid in pids}
                for pid, since in seen.items():
                    if now - since - waited(pid) >= self._interval:
                        os.kill(pid, signal.SIGKILL)
                        self.kills += 1
                        if self.kills == self._enough:
                            open(self._end_file, "w").close()
            except (OSError, ValueError):
                supervisor = 0
