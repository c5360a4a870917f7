"""The credentials of an emulated process and the rules of changing them: credentials(7).

A set is immutable. The rules are those of setuid(2), setreuid(2), setresuid(2),
setfsuid(2) and setgroups(2); whoever has the effective user ID 0 counts as having
CAP_SETUID and CAP_SETGID.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Ids: TypeAlias = tuple[int, int, int, int]

NO_CHANGE = 0xFFFFFFFF
"""The ID -1: no valid one, and "leave as is" where a call takes several."""

GROUPS_LIMIT = 65536
"""``NGROUPS_MAX``."""


class Credentials:
    """Real, effective, saved and file system IDs, and the supplementary groups, sorted."""

    __slots__ = ("gids", "groups", "uids")

    def __init__(self, uids: Ids, gids: Ids, groups: tuple[int, ...] = ()) -> None:
        self.uids = uids
        self.gids = gids
        self.groups = groups

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Credentials) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def __repr__(self) -> str:
        return f"Credentials({self.uids}, {self.gids}, {self.groups})"

    def key(self) -> tuple[Ids, Ids, tuple[int, ...]]:
        """Return all that makes up the set."""
        return self.uids, self.gids, self.groups

    @property
    def privileged(self) -> bool:
        """Whether root's capabilities come with these credentials."""
        return self.uids[1] == 0

    def in_group(self, gid: int) -> bool:
        """Return whether files of the group ``gid`` treat this process as a member."""
        return gid == self.gids[3] or gid in self.groups

    def with_uids(self, uids: Ids) -> Credentials:
        """Return the set with these user IDs."""
        return self if uids == self.uids else Credentials(uids, self.gids, self.groups)

    def with_gids(self, gids: Ids) -> Credentials:
        """Return the set with these group IDs."""
        return self if gids == self.gids else Credentials(self.uids, gids, self.groups)

    def with_groups(self, groups: list[int]) -> Credentials:
        """Return the set after setgroups(2). Raises OSError: EPERM, EINVAL."""
        if not self.privileged:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        if len(groups) > GROUPS_LIMIT or NO_CHANGE in groups:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return Credentials(self.uids, self.gids, tuple(sorted(groups)))


ROOT = Credentials((0, 0, 0, 0), (0, 0, 0, 0))
"""What a process is that has been given nothing else."""


def set_id(ids: Ids, new: int, privileged: bool) -> Ids:
    """Return the IDs after setuid(2) or setgid(2). Raises OSError: EINVAL, EPERM."""
    if new == NO_CHANGE:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if privileged:
        return (new, new, new, new)
    if new not in (ids[0], ids[2]):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    return (ids[0], new, ids[2], new)


def set_real_effective(ids: Ids, real: int, effective: int, privileged: bool) -> Ids:
    """Return the IDs after setreuid(2) or setregid(2). Raises OSError: EPERM."""
    old_real, old_effective, saved, _ = ids
    if not privileged and (
        real not in (NO_CHANGE, old_real, old_effective)
        or effective not in (NO_CHANGE, old_real, old_effective, saved)
    ):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    new_real = old_real if real == NO_CHANGE else real
    new_effective = old_effective if effective == NO_CHANGE else effective
    if real != NO_CHANGE or (effective != NO_CHANGE and effective != old_real):
        saved = new_effective
    return (new_real, new_effective, saved, new_effective)


def set_all(ids: Ids, real: int, effective: int, saved: int, privileged: bool) -> Ids:
    """Return the IDs after setresuid(2) or setresgid(2). Raises OSError: EPERM."""
    wanted = (real, effective, saved)
    if not privileged and any(new != NO_CHANGE and new not in ids[:3] for new in wanted):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    new_real, new_effective, new_saved = (
        old if new == NO_CHANGE else new for new, old in zip(wanted, ids[:3], strict=True)
    )
    return (new_real, new_effective, new_saved, new_effective)


def set_file_system(ids: Ids, new: int, privileged: bool) -> Ids:
    """Return the IDs after setfsuid(2) or setfsgid(2), which never fail."""
    if new != NO_CHANGE and (privileged or new in ids):
        return (ids[0], ids[1], ids[2], new)
    return ids
