"""What an installation by Debian's package manager leaves, compared with the real root's."""

import glob
import os
import re

from support.snapshots import MOUNTED, Excepted, Snapshot, compare

# But for the files of the host, what differs between two installations by the real root as well.
EXCEPTIONS = [
    Excepted("etc/ssh/ssh_host_*_key*", "random", "content"),
    Excepted("etc/ssl/certs/ssl-cert-snakeoil.pem", "random", "content"),
    Excepted("etc/ssl/private/ssl-cert-snakeoil.key", "random", "content"),
    Excepted("etc/ssl/certs/*.0", "named after the random certificate"),
    Excepted("etc/machine-id", "random", "content"),
    Excepted("var/lib/dbus/machine-id", "random", "content"),
    Excepted("var/cache/apt/*pkgcache.bin", "dates", "content"),
    Excepted("etc/hosts", "the container has the host's, mounted over it"),
    Excepted("var/cache/ldconfig/aux-cache", "inode numbers", "content"),
    Excepted("var/log/*", "dates", "content"),
]


def owned_by_packages(root: str) -> set[str]:
    """Return the files that ``dpkg -L`` of all installed packages prints and that are there."""
    names = set()
    for path in glob.glob(f"{root}/var/lib/dpkg/info/*.list"):
        with open(path) as file:
            for line in file:
                # Packages still ship /bin/ls, which is /usr/bin/ls by way of a symlink.
                name = re.sub(r"^/(bin|sbin|lib\w*)/", r"/usr/\1/", line.rstrip("\n"))
                names.add(os.path.normpath(name.lstrip("/") or "."))
    return {name for name in names if os.path.lexists(os.path.join(root, name))}


def check_same(oracle: Snapshot, rootless: Snapshot, root: str) -> None:
    """Fail, naming the files, unless both are the same and all files of packages are among them.

    ``root`` is the oracle's root file system.
    """
    differences = compare(oracle, rootless, EXCEPTIONS)
    assert not differences, "\n".join([f"{len(differences)} differences:", *differences[:60]])
    # None of the packages' files was left out of the comparison, but for where
    # the container has file systems of its own.
    owned = {name for name in owned_by_packages(root) if name not in MOUNTED}
    assert owned <= rootless.keys()
    assert len(owned) > 10000
