"""Mount namespaces in which /sys/fs/cgroup, or all of the root, is another than the machine's.

Only root can make them, before commands become the user without privileges.
"""

import os
import signal
import subprocess
from collections.abc import Sequence

from support.processes import eventually, read_line

# What each does, in sh, in a namespace of its own.
_UNMOUNT = "umount -l /sys/fs/cgroup 2>/dev/null || true"
LAYOUTS = {
    # crun refuses everything else.
    "v2": f"{_UNMOUNT}; mount -t cgroup2 none /sys/fs/cgroup",
    "v1": (
        f"{_UNMOUNT}; mount -t tmpfs none /sys/fs/cgroup; n=0;"
        " for c in cpu cpuacct memory pids freezer devices; do"
        ' mkdir "/sys/fs/cgroup/$c";'
        ' if mount -t cgroup -o "$c" none "/sys/fs/cgroup/$c"; then n=$((n + 1));'
        ' else rmdir "/sys/fs/cgroup/$c"; fi; done; [ "$n" -gt 0 ]'
    ),
    "none": _UNMOUNT,
    # Not about control groups at all: a file system at /mnt that is soon full.
    "small": "mount -t tmpfs -o size=640k,mode=1777 tmpfs /mnt",
}


# With $0 as the root. What the tests and the kernel share with the machine is mounted in it.
_TURN_ROOT = """
set -e
mount --bind "$0" "$0"
cd "$0"
for name in dev proc sys tmp var/tmp; do mount --rbind "/$name" "$name"; done
for name in group passwd; do mount --bind "/etc/$name" "etc/$name"; done
# Not chroot(2), after which the kernel makes no user namespace.
pivot_root . mnt
umount -l /mnt
cd /
"""


def is_unified() -> bool:
    """Return whether the machine's own control groups are laid out as version 2 has it."""
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


class MountNamespace:
    """A mount namespace with one of ``LAYOUTS``, held by a process until it is closed.

    With ``delegate_to``, a user and a group ID, what is run in it is in a cgroup (version 2)
    that is that user's.
    """

    def __init__(self, layout: str, delegate_to: tuple[int, int] | None = None) -> None:
        self._cgroup = ""
        script = f"{LAYOUTS[layout]}; "
        if delegate_to is not None:
            self._cgroup = f"/sys/fs/cgroup/runrootless-test-{os.getpid()}"
            script += f'mkdir -p "{self._cgroup}/user" && chown -R {{}}:{{}} "{self._cgroup}" && '
            script = script.format(*delegate_to)
        self._process = _hold(script)

    def enter(self, uid: int, gid: int, cwd: str, args: Sequence[str]) -> list[str]:
        """Return the command line for root that runs ``args`` in here, as that user."""
        words = ["nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt"]
        if self._cgroup:
            script = 'echo $$ >"$0" && exec "$@"'
            words += ["sh", "-c", script, f"{self._cgroup}/user/cgroup.procs"]
        words += ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        return [*words, "env", "-C", cwd, *args]

    def close(self) -> None:
        """Remove the cgroup, and let go of the namespace."""
        if self._cgroup:
            eventually(self._remove_cgroup, f"{self._cgroup} is empty")
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate(timeout=60)

    def _remove_cgroup(self) -> bool:
        script = 'find "$0" -depth -type d -exec rmdir {} +'
        enter = ["nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt"]
        command = [*enter, "sh", "-c", script, self._cgroup]
        return subprocess.run(command, capture_output=True).returncode == 0

    def cgroups(self) -> list[str]:
        """Return the names of the cgroups below the delegated one, less the user's own."""
        path = f"/proc/{self._process.pid}/root{self._cgroup}"
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir() and entry.name != "user"]


class Prepared(MountNamespace):
    """Mount namespaces, one for each command, which a script of sh prepares as root.

    It has the environment of the user's command, and goes with it.
    """

    def __init__(self, script: str) -> None:
        self._script = script

    def enter(self, uid: int, gid: int, cwd: str, args: Sequence[str]) -> list[str]:
        """Return the command line for root that runs ``args`` in a new one, as that user."""
        user = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "env", "-C", cwd]
        words = ["unshare", "--mount", "--propagation=private", "sh", "-ec"]
        return [*words, f'{self._script}\nexec "$@"', "sh", *user, *args]

    def close(self) -> None:
        """There is nothing to let go of."""


class Machine(MountNamespace):
    """A mount namespace whose root is another one than the machine's, with cgroup version 2.

    /tmp, /var/tmp and the users are the machine's own. ``root`` has the programs mount and
    umount, and those that commands of users begin with: setpriv and env.
    """

    def __init__(self, root: str) -> None:
        self._cgroup = ""
        self._process = _hold(f"{_TURN_ROOT}{LAYOUTS['v2']}; ", root)


def _hold(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """Return a process that stays in a mount namespace in which it has run a script of sh."""
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c"]
    process = subprocess.Popen(
        [*command, f"{script}echo ready && exec sleep 1000000", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if read_line(process) != "ready\n":
        _, error = process.communicate(timeout=60)
        raise RuntimeError(f"no mount namespace by {script}: {error}")
    return process
