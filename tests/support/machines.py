"""Another machine than this one, for what asks ``HostFacts``."""

from collections.abc import Sequence

from runrootless.bundle.host import HostFacts

Ranges = Sequence[tuple[int, int]]


class Machine(HostFacts):
    """A machine of which a test says what there is."""

    def __init__(
        self,
        uid: int = 1000,
        gid: int = 1001,
        files: tuple[str, ...] = ("/sys", "/proc", "/dev/mqueue", "/etc/resolv.conf", "/etc/hosts"),
        limits: dict[str, int] | None = None,
        locked: dict[str, list[str]] | None = None,
        devices: dict[str, tuple[str, int, int]] | None = None,
        cgroup: bool = False,
        oom_score_adj: int = 0,
        subordinate_ids: tuple[Ranges, Ranges] = ((), ()),
        in_user_namespace: bool = False,
    ) -> None:
        super().__init__()
        self.uid = uid
        self.gid = gid
        self.files = files
        self.limits = limits or {}
        self.locked = locked or {}
        self.devices = devices or {}
        self.cgroup = cgroup
        self.own_oom_score_adj = oom_score_adj
        self.ranges = subordinate_ids
        self.in_user_namespace = in_user_namespace

    def owns_user_namespace(self) -> bool:
        return self.in_user_namespace

    def exists(self, path: str) -> bool:
        return path in self.files

    def hard_limit(self, name: str) -> int | None:
        return self.limits.get(name)

    def subordinate_ids(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        return list(self.ranges[0]), list(self.ranges[1])

    def oom_score_adj(self) -> int:
        return self.own_oom_score_adj

    def locked_mount_options(self, path: str) -> list[str]:
        return self.locked.get(path, [])

    def device(self, path: str) -> tuple[str, int, int] | None:
        return self.devices.get(path)

    def own_cgroup_writable(self) -> bool:
        return self.cgroup
