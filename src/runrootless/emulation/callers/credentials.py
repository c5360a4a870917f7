"""The credentials of an emulated process and the rules of changing them: credentials(7).

A set is immutable. The rules are those of setuid(2), setreuid(2), setresuid(2),
setfsuid(2), setgroups(2), capset(2) and execve(2), and what capabilities(7) says of
the effect of user ID changes on capabilities.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import TypeAlias

    Ids: TypeAlias = tuple[int, int, int, int]

NO_CHANGE = 0xFFFFFFFF
"""The ID -1: no valid one, and "leave as is" where a call takes several."""

GROUPS_LIMIT = 65536
"""``NGROUPS_MAX``."""

CAP_CHOWN = 1 << 0
CAP_DAC_OVERRIDE = 1 << 1
CAP_DAC_READ_SEARCH = 1 << 2
CAP_FOWNER = 1 << 3
CAP_FSETID = 1 << 4
CAP_KILL = 1 << 5
CAP_SETGID = 1 << 6
CAP_SETUID = 1 << 7
CAP_SETPCAP = 1 << 8
CAP_SYS_CHROOT = 1 << 18
CAP_SYS_PTRACE = 1 << 19
CAP_SYS_ADMIN = 1 << 21
CAP_SYS_BOOT = 1 << 22
CAP_SYS_NICE = 1 << 23
CAP_SYS_RESOURCE = 1 << 24
CAP_MKNOD = 1 << 27
CAP_SETFCAP = 1 << 31
ALL_CAPABILITIES = (1 << 64) - 1
"""Root's: whatever the kernel, and with it the spec, leaves of them."""

SECURE_NO_ROOT = 1 << 0
SECURE_NO_SETUID_FIXUP = 1 << 2
SECURE_KEEP_CAPS = 1 << 4
"""Of <linux/securebits.h>: the bits that matter here."""

_FILE_SYSTEM_CAPABILITIES = CAP_CHOWN | 0b11110 | 1 << 9 | CAP_MKNOD | 1 << 32
"""``CAP_FS_MASK``: those that follow the file system user ID."""


class Credentials:
    """Real, effective, saved and file system IDs, supplementary groups, and capabilities.

    ``groups`` are sorted; ``permitted`` and ``effective`` are bit sets of capabilities(7), of
    which the kernel may leave less; ``securebits`` are those of prctl(2).
    """

    __slots__ = ("effective", "gids", "groups", "permitted", "securebits", "uids")

    def __init__(
        self,
        uids: Ids,
        gids: Ids,
        groups: tuple[int, ...] = (),
        permitted: int = 0,
        effective: int = 0,
        securebits: int = 0,
    ) -> None:
        self.uids = uids
        self.gids = gids
        self.groups = groups
        self.permitted = permitted
        self.effective = effective
        self.securebits = securebits

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Credentials) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def __repr__(self) -> str:
        return f"Credentials{self.key()}"

    def key(self) -> tuple[Ids, Ids, tuple[int, ...], int, int, int]:
        """Return all that makes up the set."""
        return self.uids, self.gids, self.groups, *self._privileges()

    def can(self, capability: int) -> bool:
        """Return whether a capability is effective, as far as the kernel has it."""
        return bool(self.effective & capability)

    def in_group(self, gid: int) -> bool:
        """Return whether files of the group ``gid`` treat this process as a member."""
        return gid == self.gids[3] or gid in self.groups

    def with_uids(self, uids: Ids) -> Credentials:
        """Return the set with these user IDs, and the capabilities that they leave."""
        old = self.uids
        if uids == old:
            return self
        permitted, effective = self.permitted, self.effective
        if self.securebits & SECURE_NO_SETUID_FIXUP:
            pass
        elif uids[:3] == old[:3]:
            if old[3] == 0:
                effective &= ~_FILE_SYSTEM_CAPABILITIES
            elif uids[3] == 0:
                effective |= permitted & _FILE_SYSTEM_CAPABILITIES
        else:
            keeps = self.securebits & SECURE_KEEP_CAPS
            if 0 in old[:3] and 0 not in uids[:3] and not keeps:
                permitted = effective = 0
            if old[1] == 0 and uids[1] != 0:
                effective = 0
            elif old[1] != 0 and uids[1] == 0:
                effective = permitted
        return Credentials(uids, self.gids, self.groups, permitted, effective, self.securebits)

    def with_gids(self, gids: Ids) -> Credentials:
        """Return the set with these group IDs."""
        if gids == self.gids:
            return self
        return Credentials(self.uids, gids, self.groups, *self._privileges())

    def with_groups(self, groups: list[int]) -> Credentials:
        """Return the set after setgroups(2) by who may. Raises OSError: EINVAL."""
        if len(groups) > GROUPS_LIMIT or NO_CHANGE in groups:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return Credentials(self.uids, self.gids, tuple(sorted(groups)), *self._privileges())

    def with_capabilities(self, permitted: int, effective: int) -> Credentials:
        """Return the set after capset(2). Raises OSError: EPERM."""
        if permitted & ~self.permitted or effective & ~permitted:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return Credentials(self.uids, self.gids, self.groups, permitted, effective, self.securebits)

    def with_securebits(self, securebits: int) -> Credentials:
        """Return the set with other securebits."""
        return Credentials(
            self.uids, self.gids, self.groups, self.permitted, self.effective, securebits
        )

    def _privileges(self) -> tuple[int, int, int]:
        return self.permitted, self.effective, self.securebits

    def is_gained_from(self, old: Credentials) -> bool:
        """Return whether a change from ``old`` makes the process one that cannot be dumped.

        The kernel's ``commit_creds``: other IDs than before, or more capabilities.
        """
        return (
            self.uids[1::2] != old.uids[1::2]
            or self.gids[1::2] != old.gids[1::2]
            or bool(self.permitted & ~old.permitted)
        )

    def after_exec(self, owner: int | None, group: int | None) -> Credentials:
        """Return the set after execve(2) of a file.

        ``owner`` and ``group`` are the file's where its set-user-ID or set-group-ID bit
        counts, else None.
        """
        real, effective = self.uids[0], self.uids[1] if owner is None else owner
        real_group, effective_group = self.gids[0], self.gids[1] if group is None else group
        is_root = 0 in (real, effective) and not self.securebits & SECURE_NO_ROOT
        permitted = ALL_CAPABILITIES if is_root else 0
        return Credentials(
            (real, effective, effective, effective),
            (real_group, effective_group, effective_group, effective_group),
            self.groups,
            permitted,
            permitted if effective == 0 else 0,
            self.securebits & ~SECURE_KEEP_CAPS,
        )


ROOT = Credentials((0, 0, 0, 0), (0, 0, 0, 0), (), ALL_CAPABILITIES, ALL_CAPABILITIES)
"""What a process is that has been given nothing else."""


def initial(uid: int, gid: int, groups: tuple[int, ...] = ()) -> Credentials:
    """Return the set of a process that is started as a user."""
    capabilities = ALL_CAPABILITIES if uid == 0 else 0
    uids, gids = (uid, uid, uid, uid), (gid, gid, gid, gid)
    return Credentials(uids, gids, tuple(sorted(groups)), capabilities, capabilities)


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
    if (
        real in (NO_CHANGE, ids[0])
        and (effective == NO_CHANGE or effective == ids[1] == ids[3])
        and saved in (NO_CHANGE, ids[2])
    ):
        # Since Linux 6.3 the file system ID stays too, where nothing is to change.
        return ids
    if not privileged and any(new != NO_CHANGE and new not in ids[:3] for new in wanted):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    new_real, new_effective, new_saved = (
        old if new == NO_CHANGE else new for new, old in zip(wanted, ids[:3])
    )
    return (new_real, new_effective, new_saved, new_effective)


def set_file_system(ids: Ids, new: int, privileged: bool) -> Ids:
    """Return the IDs after setfsuid(2) or setfsgid(2), which never fail."""
    if new != NO_CHANGE and (privileged or new in ids):
        return (ids[0], ids[1], ids[2], new)
    return ids
