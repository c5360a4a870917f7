"""What the transformation must know of the machine: all of it is asked here.

The functions that transform a spec are pure but for what this object tells
them, so a test can give them another machine.
"""

from __future__ import annotations

import os
from stat import S_ISBLK, S_ISCHR, S_ISFIFO

# statvfs(3) flags of a mount that an unprivileged remount may not take away, and
# the mount options that keep them: mount_namespaces(7), "locked" flags.
_LOCKED_FLAGS = (
    (os.ST_RDONLY, "ro"),
    (os.ST_NOSUID, "nosuid"),
    (os.ST_NODEV, "nodev"),
    (os.ST_NOEXEC, "noexec"),
)
_UNLIMITED = (1 << 64) - 1
# <linux/capability.h>.
_CAP_SYS_ADMIN = 21
# Of the namespace that the system started with: user_namespaces(7).
_INITIAL_UID_MAP = ["0", "0", "4294967295"]


class HostFacts:
    """The caller and the machine, as far as a spec depends on them.

    ``uid`` and ``gid`` are the caller's effective IDs.  Everything else is looked
    up when it is asked for, because most specs need little of it.
    """

    __slots__ = ("_hard_limits", "gid", "uid")

    def __init__(self) -> None:
        self.uid = os.geteuid()
        self.gid = os.getegid()
        self._hard_limits: dict[str, int] | None = None

    def exists(self, path: str) -> bool:
        """Return whether ``path`` exists, symlinks followed."""
        return os.path.exists(path)

    def owns_user_namespace(self) -> bool:
        """Return whether the caller is root in a user namespace, with CAP_SYS_ADMIN over it.

        So it is below podman and buildah, which put themselves in one first, but not
        for the real root.
        """
        if self.uid != 0:
            return False
        try:
            mapping = _read("/proc/self/uid_map").split()
            capabilities = _read("/proc/self/status").partition("\nCapEff:")[2].split("\n", 1)[0]
        except OSError:
            return False
        return mapping != _INITIAL_UID_MAP and bool(int(capabilities, 16) >> _CAP_SYS_ADMIN & 1)

    def hard_limit(self, name: str) -> int | None:
        """Return the caller's hard limit of the resource ``name`` (``RLIMIT_NOFILE`` ...).

        The units are those of getrlimit(2), RLIM_INFINITY is 2**64 - 1; ``None``
        for a resource that /proc/self/limits does not name.
        """
        if self._hard_limits is None:
            self._hard_limits = _read_hard_limits()
        return self._hard_limits.get(name)

    def subordinate_ids(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return the caller's subordinate user and group IDs, as ranges (first, count).

        Both are empty unless the caller has some of both kinds and newuidmap(1) and
        newgidmap(1), which alone can map them.
        """
        from runrootless.bundle import subordinate_ids

        return subordinate_ids.find(os.getuid())

    def oom_score_adj(self) -> int:
        """Return the caller's /proc/self/oom_score_adj, 0 if it cannot be read."""
        try:
            return int(_read("/proc/self/oom_score_adj"))
        except (OSError, ValueError):
            return 0

    def locked_mount_options(self, path: str) -> list[str]:
        """Return the mount options that a bind mount of ``path`` cannot do without.

        The kernel refuses (EPERM) a remount in a user namespace that would take
        one of these flags off.  Empty if the path does not exist.
        """
        try:
            flags = os.statvfs(path).f_flag
        except OSError:
            return []
        return [option for flag, option in _LOCKED_FLAGS if flags & flag]

    def device(self, path: str) -> tuple[str, int, int] | None:
        """Return type (``c``, ``b`` or ``p``), major and minor of the device ``path``.

        ``None`` if there is no device or FIFO of that name.
        """
        try:
            found = os.stat(path)
        except OSError:
            return None
        for test, kind in ((S_ISCHR, "c"), (S_ISBLK, "b"), (S_ISFIFO, "p")):
            if test(found.st_mode):
                return kind, os.major(found.st_rdev), os.minor(found.st_rdev)
        return None

    def own_cgroup_writable(self) -> bool:
        """Return whether the caller may make cgroups below its own cgroup v2 cgroup."""
        try:
            lines = _read("/proc/self/cgroup").split("\n")
        except OSError:
            return False
        for line in lines:
            if line.startswith("0::/"):
                path = "/sys/fs/cgroup" + line[3:]
                # On a hybrid layout the controllers are in version 1, which
                # no unprivileged user is given.
                return os.path.exists("/sys/fs/cgroup/cgroup.controllers") and os.access(
                    path, os.W_OK
                )
        return False


def _read_hard_limits() -> dict[str, int]:
    # The module "resource" would do, but loading it takes ten times as long.
    limits = {}
    try:
        lines = _read("/proc/self/limits").split("\n")
    except OSError:
        return {}
    for line in lines[1:]:
        # proc_pid_limits(5): the name in 26 columns, then soft and hard limit.
        name = _LIMIT_NAMES.get(line[:26].strip())
        values = line[26:].split()
        if name is not None and len(values) >= 2:
            limits[name] = _UNLIMITED if values[1] == "unlimited" else int(values[1])
    return limits


_LIMIT_NAMES = {
    "Max cpu time": "RLIMIT_CPU",
    "Max file size": "RLIMIT_FSIZE",
    "Max data size": "RLIMIT_DATA",
    "Max stack size": "RLIMIT_STACK",
    "Max core file size": "RLIMIT_CORE",
    "Max resident set": "RLIMIT_RSS",
    "Max processes": "RLIMIT_NPROC",
    "Max open files": "RLIMIT_NOFILE",
    "Max locked memory": "RLIMIT_MEMLOCK",
    "Max address space": "RLIMIT_AS",
    "Max file locks": "RLIMIT_LOCKS",
    "Max pending signals": "RLIMIT_SIGPENDING",
    "Max msgqueue size": "RLIMIT_MSGQUEUE",
    "Max nice priority": "RLIMIT_NICE",
    "Max realtime priority": "RLIMIT_RTPRIO",
    "Max realtime timeout": "RLIMIT_RTTIME",
}


def _read(path: str) -> str:
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 1 << 16).decode("utf-8", "replace")
    finally:
        os.close(file)
