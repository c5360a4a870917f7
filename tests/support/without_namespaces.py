"""A host without user namespaces, for one user and without changing the host.

The commands run in a user namespace in which every ID means itself, so that the user is as
unprivileged there as outside, and in which /proc/sys/user/max_user_namespaces, which each user
namespace has of its own, is 0: namespaces(7).
"""

import os
import subprocess
from collections.abc import Sequence

from support.processes import eventually
from support.users import Account, Unprivileged

ALL_IDS = "0 0 4294967295"
LIMIT = "/proc/sys/user/max_user_namespaces"


class WithoutUserNamespaces(Unprivileged):
    """Runs commands as a user who can have no user namespace. Only for root."""

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        own = os.readlink("/proc/self/ns/user")
        self._holder = subprocess.Popen(["unshare", "--user", "sleep", "infinity"])
        pid = self._holder.pid
        eventually(lambda: os.readlink(f"/proc/{pid}/ns/user") != own, "its user namespace")
        for kind in ("uid", "gid"):
            with open(f"/proc/{pid}/{kind}_map", "w") as file:
                file.write(ALL_IDS)
        subprocess.run([*self._enter(0, 0), "sh", "-c", f"echo 0 >{LIMIT}"], check=True)

    def _enter(self, uid: int, gid: int) -> list[str]:
        namespace = f"--user=/proc/{self._holder.pid}/ns/user"
        return ["nsenter", namespace, f"--setuid={uid}", f"--setgid={gid}"]

    @property
    def _user(self) -> tuple[int, int] | None:
        # nsenter changes it, when it is in the namespace.
        return None

    def _command(self, args: Sequence[str], cwd: str) -> list[str]:
        return [*self._enter(self.account.uid, self.account.gid), *super()._command(args, cwd)]

    def close(self) -> None:
        super().close()
        self._holder.kill()
        self._holder.wait()
