"""Who the process of a container wants to be.

Only ID 0 is mapped in the container's user namespace, so the runtime starts
every process as 0:0; the identity that the spec asks for is carried beside it
and is the emulation's to provide.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# (uid_t) -1 means "leave as it is" to chown(2) and setuid(2), so it is no ID.
_NO_ID = 0xFFFFFFFF


class Identity:
    """User ID, group ID and supplementary groups of a process (``process.user``)."""

    __slots__ = ("additional_gids", "gid", "uid")

    def __init__(self, uid: int, gid: int, additional_gids: tuple[int, ...] = ()) -> None:
        self.uid = uid
        self.gid = gid
        self.additional_gids = additional_gids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and (
            (self.uid, self.gid, self.additional_gids)
            == (other.uid, other.gid, other.additional_gids)
        )

    def __hash__(self) -> int:
        return hash((self.uid, self.gid, self.additional_gids))

    def __repr__(self) -> str:
        return f"Identity({self.uid}, {self.gid}, {self.additional_gids})"

    def is_valid(self) -> bool:
        """Return whether the kernel could give a process all these IDs."""
        return all(0 <= id_ < _NO_ID for id_ in (self.uid, self.gid, *self.additional_gids))

    @classmethod
    def of_user(cls, user: dict[str, Any]) -> Identity:
        """Return the identity of an OCI ``process.user`` object."""
        return cls(user.get("uid", 0), user.get("gid", 0), tuple(user.get("additionalGids", ())))
