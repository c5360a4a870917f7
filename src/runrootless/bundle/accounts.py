"""Users and groups as the container's /etc/passwd and /etc/group name them."""

from __future__ import annotations

from runrootless.bundle import rootfs
from runrootless.bundle.identity import Identity
from runrootless.errors import Error


def home(root: str, uid: int) -> str:
    """Return the home directory of ``uid`` in the root file system ``root``.

    ``/`` if there is no such user or no passwd(5) file, as the runtimes do it.
    """
    for fields in records(root, "/etc/passwd", 7):
        if fields[2] == str(uid):
            return fields[5] or "/"
    return "/"


def resolve(root: str, wanted: str, default: Identity, source: str = "--user") -> Identity:
    """Return the identity that ``exec --user`` means by ``wanted``.

    ``wanted`` is USER or USER:GROUP, each a number or a name of passwd(5) or
    group(5) in the root file system ``root``.  Numbers are taken as runc takes
    them: the group and the supplementary groups stay those of ``default``.  A name
    brings its primary group and every group that lists it, unless a group is given.
    ``source`` is where the user has said so.

    Raises ``Error`` for a name that is not there and an ID that cannot be.
    """
    user, colon, group = wanted.partition(":")
    if _is_number(user):
        identity = Identity(int(user), default.gid, default.additional_gids)
    else:
        identity = _named_user(root, user, source, with_groups=not colon)
    if colon:
        gid = int(group) if _is_number(group) else _named_group(root, group, source)
        identity = Identity(identity.uid, gid, identity.additional_gids)
    if not identity.is_valid():
        raise Error(f"{source} {wanted}: an ID is not below 4294967295")
    return identity


def _named_user(root: str, name: str, source: str, with_groups: bool) -> Identity:
    for fields in records(root, "/etc/passwd", 7):
        if fields[0] == name and _is_number(fields[2]) and _is_number(fields[3]):
            gids = []
            if with_groups:
                for group in records(root, "/etc/group", 4):
                    if name in group[3].split(",") and _is_number(group[2]):
                        gids.append(int(group[2]))
            return Identity(int(fields[2]), int(fields[3]), tuple(gids))
    raise Error(f"{source}: the container's /etc/passwd has no user {name!r}: give the number")


def _named_group(root: str, name: str, source: str) -> int:
    for fields in records(root, "/etc/group", 4):
        if fields[0] == name and _is_number(fields[2]):
            return int(fields[2])
    raise Error(f"{source}: the container's /etc/group has no group {name!r}: give the number")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def records(root: str, path: str, count: int) -> list[list[str]]:
    """Return the records with at least ``count`` fields of a colon-separated file."""
    try:
        text = rootfs.read_text(root, path)
    except OSError:
        return []
    lines = (line.split(":") for line in text.split("\n"))
    return [fields for fields in lines if len(fields) >= count]
