"""Files of the host that no container may see or change, and what the agents hold."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from support.agents import agents
from support.trees import XATTR
from support.users import AS_ROOT, Unprivileged

Identity = tuple[int, int]


@dataclass
class Canaries:
    """Files of the host that no container has, in a directory that its user may write to."""

    user: Unprivileged
    directory: str

    # With an owner on record, a set-user-ID bit, neither of both, another user's.
    NAMES = ("secret", "program", "plain", "roots", "open/inside")

    @classmethod
    def make(cls, user: Unprivileged, directory: str) -> "Canaries":
        """Make them in a new directory."""
        os.mkdir(directory)
        os.mkdir(f"{directory}/open")
        for name in cls.NAMES:
            with open(f"{directory}/{name}", "w") as file:
                file.write(f"the content of {name}")
        for name in (".", "open", *cls.NAMES):
            user.give(f"{directory}/{name}")
        for name in cls.NAMES:
            os.chmod(f"{directory}/{name}", 0o600)
        os.chmod(f"{directory}/program", 0o6755)
        os.chmod(f"{directory}/open", 0o2777)
        for name in ("secret", "open", "open/inside"):
            # The kernel's own answer to stat(2) is not let through where there is a record.
            os.setxattr(f"{directory}/{name}", XATTR, bytes((8, 7, 16, 8)))
        os.setxattr(f"{directory}/plain", "user.label", b"kept")
        if AS_ROOT:
            os.chown(f"{directory}/roots", 0, 0)
        return cls(user, directory)

    def _paths(self) -> Iterator[str]:
        yield self.directory
        for directory, names, files in os.walk(self.directory):
            yield from (os.path.join(directory, name) for name in sorted(names + files))

    def describe(self) -> dict[str, Any]:
        """Return all that can be changed of them but the times at which they were read."""
        found: dict[str, Any] = {}
        for path in self._paths():
            s = os.lstat(path)
            found[path] = [
                s.st_dev, s.st_ino, oct(s.st_mode), s.st_uid, s.st_gid, s.st_nlink, s.st_size,
                s.st_mtime_ns, s.st_ctime_ns,
                [(name, os.getxattr(path, name, follow_symlinks=False))
                 for name in sorted(os.listxattr(path, follow_symlinks=False))],
            ]  # fmt: skip
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    found[path].append(file.read())
        return found

    def identities(self) -> set[Identity]:
        """Return their device and inode numbers."""
        return {(s.st_dev, s.st_ino) for s in map(os.lstat, self._paths())}


def agents_descriptors(user: Unprivileged) -> dict[Identity, str]:
    """Return the files, directories and pipes that the agents hold, by their numbers.

    Those of the container itself are among them.
    """
    found = {}
    for pid in agents(user.account):
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{name}"
                status = os.stat(path)
                found[status.st_dev, status.st_ino] = os.readlink(path)
        except OSError:
            continue
    return found
