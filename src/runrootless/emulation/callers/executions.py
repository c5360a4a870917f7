"""Whether an execve(2) that was let through has replaced a process's program by now.

The agent learns of the call and not of its result, and the kernel looks the file up again.
Until the result matters, the process's number keeps both: a check of its memory before the
call, and the credentials that the program gives it. Such a number is inherited as others
are: a child that was made before the program was replaced still has the old memory.

* The memory is as it was: the call has not happened yet, or has failed.
* It is another, and the file is the one that was asked for: so are the credentials.
* It is another, and so is the file: another thread has executed it, or the path has been
  changed. Then the credentials are those that any file makes.

What has not changed never counts as changed. What has changed counts as unchanged once in
2**37 times; in 2**15 where a process that has set RLIMIT_RTTIME can only win by the program, and
then has not. The check has a secret in it, for programs choose where their memory begins.
"""

from __future__ import annotations

from _blake2 import blake2b

from runrootless.emulation.callers.credential_table import CredentialTable, check_differs
from runrootless.linux.memory_image import executable, layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.callers.credential_table import State
    from runrootless.emulation.callers.credentials import Credentials

_CHECK_SIZE = 8


class SetId:
    """The IDs that the set-user-ID and set-group-ID bits of a file give to its caller.

    ``owner`` and ``group`` are None where the one or the other bit does not count. ``file`` is
    the device and inode of the file, as stat(2) has them, and ``payer`` whose it is: who pays
    for what has to be noted.
    """

    __slots__ = ("file", "group", "owner", "payer")

    def __init__(
        self, owner: int | None, group: int | None, file: tuple[int, int], payer: int
    ) -> None:
        self.owner = owner
        self.group = group
        self.file = file
        self.payer = payer


class Executions:
    """Finds out whether processes with pending numbers have executed their programs."""

    def __init__(self, table: CredentialTable) -> None:
        self._table = table

    def check(self, directory: bytes) -> int:
        """Return what a thread's memory is known by. Raises OSError where it has none.

        ``directory`` is its directory in /proc.
        """
        return self._check(layout(directory) or b"", executable(directory))

    def outcome(self, directory: bytes, number: int) -> tuple[Credentials, State] | None:
        """Return what a thread has become by executing a program.

        None where its process still has the program that it had when it got its ``number``,
        a pending one. Raises OSError where the table cannot be read.
        """
        try:
            where, file = layout(directory), executable(directory)
        except OSError:
            return None
        if where is None or not check_differs(number, self._check(where, file)):
            return None
        outcome = self._table.outcome(number)
        soft, hard, _ = self._table.state(number)
        if outcome.file in (file, (0, 0)):
            return outcome.new, (soft, hard, outcome.dumpable[0])
        return outcome.plain, (soft, hard, outcome.dumpable[1])

    def _check(self, where: bytes, file: tuple[int, int]) -> int:
        text = b"%b %d %d" % (where, *file)
        key = self._table.key()
        return int.from_bytes(blake2b(text, key=key, digest_size=_CHECK_SIZE).digest(), "little")
