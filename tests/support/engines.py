"""podman, buildah and containerd as the user without privileges runs them."""

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from support.containers import COMMAND
from support.processes import Result
from support.users import AS_ROOT, Account, Unprivileged

TUN = "/dev/net/tun"


class ClusterUser(Unprivileged):
    """The user on a machine where all may open /dev/net/tun, as udev has it.

    Where only root may, and the tests are root, the user gets a mount namespace in which
    a node with the usual mode is mounted over it.
    """

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self._prefix: list[str] = []
        if not AS_ROOT or not os.path.exists(TUN) or os.stat(TUN).st_mode & 0o006 == 0o006:
            return
        node = os.path.join(self.session, "tun")
        try:
            os.mknod(node, 0o666 | stat.S_IFCHR, os.stat(TUN).st_rdev)
        except PermissionError:
            return
        os.chmod(node, 0o666)
        script = f'mount --bind {node} {TUN} && exec setpriv --reuid "$0" --regid "$1" "${{@:2}}"'
        self._prefix = ["unshare", "--mount", "--propagation=private", "bash", "-c", script]
        self._prefix += [str(account.uid), str(account.gid), "--clear-groups"]

    @property
    def _user(self) -> tuple[int, int] | None:
        return None if self._prefix else super()._user

    def _command(self, args: Sequence[str], cwd: str) -> list[str]:
        return [*self._prefix, *super()._command(args, cwd)]

    def has_tun(self) -> bool:
        """Return whether the user may open /dev/net/tun."""
        return self.run(["sh", "-c", f": <>{TUN}"]).returncode == 0


class Engine:
    """Runs one of the programs that call the runtime."""

    def __init__(self, user: Unprivileged, *command: str) -> None:
        self.user = user
        self.command = list(command)

    def __call__(
        self, *args: str, cwd: str | None = None, timeout: float = 120, input: str | None = None
    ) -> Result:
        """Run it with these arguments."""
        return self.user.run([*self.command, *args], cwd=cwd, timeout=timeout, input=input)

    def agents(self) -> list[str]:
        """Return the command lines of what runs for containers."""
        return [
            process.command
            for process in self.user.account.processes()
            if "runrootless" in process.command or "conmon" in process.command
        ]


def set_up(user: Unprivileged) -> Result:
    """Let podman and buildah use the runtime, by the command that users are told."""
    # By its name, as users have it in PATH.
    bin = os.path.join(user.home, "bin")
    if not os.path.isdir(bin):
        os.mkdir(bin, 0o755)
        os.symlink(COMMAND, os.path.join(bin, "runrootless"))
    return user.run(["runrootless", "setup", "podman"], env={"PATH": f"{bin}:{user.env['PATH']}"})


@contextmanager
def podman_user(account: Account) -> Iterator[ClusterUser]:
    """Give the user who has called `runrootless setup podman`; take what is left of it away."""
    user = ClusterUser(account)
    try:
        set_up(user).check()
        yield user
        if not AS_ROOT:
            # The kernel's own directories in it may not be entered otherwise.
            user.run(["podman", "unshare", "chmod", "-R", "u+rwX", user.home])
    finally:
        user.close()


def make_context(user: Unprivileged, containerfile: str, files: Mapping[str, str]) -> str:
    """Make a directory to build an image in."""
    directory = tempfile.mkdtemp(prefix="context-", dir=user.session)
    os.chmod(directory, 0o755)
    for name, content in {"Containerfile": containerfile, **files}.items():
        with open(os.path.join(directory, name), "w") as file:
            file.write(content)
        os.chmod(file.name, 0o644)
    return directory
