"""Where the caller is: the current directory's file system, private directories, cgroups."""

from __future__ import annotations

import errno
import os
import tempfile

from runrootless.containers import state
from runrootless.doctor.finding import INFO, NO, OK, Finding, error_of, read
from runrootless.errors import Error

_ATTRIBUTE = "user.runrootless.doctor"
_CGROUPS = "/sys/fs/cgroup"


def attributes() -> Finding:
    """Set an extended attribute of a temporary file in the current directory."""
    name = "xattrs here"
    try:
        here = os.getcwd()
        file = tempfile.NamedTemporaryFile(dir=here, prefix=".runrootless-")  # noqa: SIM115
    except OSError as error:
        return Finding(name, INFO, f"not tried: no file can be made here: {error.strerror}")
    with file:
        number = error_of(lambda: os.setxattr(file.name, _ATTRIBUTE, b"1"))
    if number == 0:
        return Finding(name, OK, f"owners of files in {here} can be kept with the files")
    if number in (errno.EOPNOTSUPP, errno.EPERM):
        return Finding(
            name,
            INFO,
            f"{here} has no user attributes: owners are kept in a file of their own,"
            " and do not move with copies of the files",
            "work on ext4, XFS or btrfs, in /var/tmp perhaps",
        )
    return Finding(name, NO, f"{here}: {os.strerror(number)}", "free some space or quota there")


def private_directory() -> Finding:
    """Make sure of the directory that containers' sockets are kept in."""
    name = "private directory"
    try:
        return Finding(name, OK, state.open_base())
    except Error as error:
        return Finding(name, NO, str(error), "set XDG_RUNTIME_DIR to a directory of your own")


def cgroups() -> Finding:
    """Tell the layout of cgroups, and make one below the caller's own."""
    name = "cgroups"
    kinds = {_type_and_point(line) for line in read("/proc/self/mountinfo").splitlines()}
    first = any(kind == "cgroup" for kind, _ in kinds)
    second = [point for kind, point in kinds if kind == "cgroup2"]
    if not first and not second:
        return Finding(name, INFO, f"none mounted at {_CGROUPS}: limits of bundles are dropped")
    if first:
        layout = "hybrid, v1 and v2" if second else "v1"
        return Finding(
            name,
            INFO,
            f"{layout}: limits of bundles are dropped",
        )
    own = next(
        (line[3:] for line in read("/proc/self/cgroup").splitlines() if line.startswith("0::")), "/"
    )
    place = second[0] + own.rstrip("/")
    trial = f"{place}/runrootless-doctor-{os.getpid()}"
    number = error_of(lambda: os.mkdir(trial))
    if number:
        return Finding(
            name,
            INFO,
            f"v2, not delegated ({place}: {os.strerror(number)}): limits of bundles are dropped",
            "for limits: systemd-run --user --scope -p Delegate=yes, or --systemd-cgroup",
        )
    os.rmdir(trial)
    controllers = read(f"{place}/cgroup.controllers").replace(" ", ", ") or "no controllers"
    return Finding(name, OK, f"v2, delegated: {controllers}")


def _type_and_point(line: str) -> tuple[str, str]:
    """Return type and mount point of a line of mountinfo: proc_pid_mountinfo(5)."""
    before, _, after = line.partition(" - ")
    return after.split(" ", 1)[0], before.split()[4]
