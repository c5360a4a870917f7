"""Where the caller is: the current directory's file system, private directories, cgroups."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from functools import partial

from runrootless import requirements
from runrootless.agent import launch, user_stores
from runrootless.containers import state
from runrootless.doctor.finding import INFO, NO, OK, Finding, error_of, read
from runrootless.errors import Error, one_line

_ATTRIBUTE = "user.runrootless.doctor"
# The launcher, the derived bundle and what the runtime keeps are each smaller.
_FILE_SIZE = 1 << 17
_CGROUPS = "/sys/fs/cgroup"


def attributes() -> Finding:
    """Set an extended attribute of a temporary file in the current directory."""
    name = "xattrs here"
    try:
        here = os.getcwd()
        fd, path = tempfile.mkstemp(dir=here, prefix=".runrootless-")
    except OSError as error:
        return Finding(
            name,
            INFO,
            f"not tried: no file can be made here: {error.strerror}",
            "keep bundles in a directory of your own, and start doctor there",
        )
    try:
        # By its descriptor: a umask may leave the file's mode closed to its owner.
        number = error_of(lambda: os.setxattr(fd, _ATTRIBUTE, b"1"))
    finally:
        os.close(fd)
        os.unlink(path)
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


def mount_flags() -> Finding:
    """Tell whether programs of a bundle in the current directory could be executed."""
    name = "programs here"
    try:
        here = os.getcwd()
        flags = os.statvfs(here).f_flag
    except OSError as error:
        return Finding(name, INFO, f"not tried: {error.strerror}", "go to a directory that exists")
    if flags & os.ST_NOEXEC:
        return Finding(
            name,
            NO,
            f"{here} is mounted noexec: no program of a bundle in it can be executed",
            "keep bundles on another file system, in /var/tmp perhaps",
        )
    if flags & os.ST_RDONLY:
        return Finding(
            name,
            INFO,
            f"{here} is mounted read-only: containers in it can change nothing",
            "keep bundles on another file system, in /var/tmp perhaps",
        )
    return Finding(name, OK, f"{here} is mounted so that they can be executed")


def private_directory() -> Finding:
    """Make sure of the directory that containers' sockets are kept in, and of room in it."""
    name = "private directory"
    remedy = "set XDG_RUNTIME_DIR to a directory of your own"
    try:
        path = state.open_base()
        requirements.require_room(path)
    except (Error, OSError) as error:
        return Finding(name, NO, one_line(error), remedy)
    refusal = state.runtime_directory_refusal()
    if refusal:
        return Finding(name, OK, f"{path}: {refusal}", remedy)
    return Finding(name, OK, path)


def side_stores() -> Finding:
    """Make sure of the directory where `emulate` keeps what files cannot carry."""
    name = "owners of emulate"
    path = user_stores.directory()
    refusal = user_stores.refusal(path)
    remedy = "set XDG_DATA_HOME to a directory of your own"
    if refusal:
        return Finding(
            name,
            INFO,
            f"{refusal}: those of symlinks and special files are kept in the private directory,"
            " as long as that is there",
            remedy,
        )
    found = os.statvfs(user_stores.existing(path))
    # Some do not count them: statfs(2).
    if (found.f_blocks and not found.f_bavail) or (found.f_files and not found.f_favail):
        return Finding(name, NO, f"{path}: no space left for them", f"free some, or {remedy}")
    return Finding(name, OK, f"{path}, for symlinks and special files")


def limits() -> Finding:
    """Look at the limits (setrlimit(2)) that starting a container can run into."""
    name = "limits"
    checks = (
        requirements.require_descriptors,
        partial(requirements.require_processes, requirements.PROCESSES),
        launch.require_limits,
        _require_file_size,
    )
    for check in checks:
        try:
            check()
        except (Error, OSError) as error:
            text, _, remedy = one_line(error).rpartition(": ")
            if not remedy.startswith("raise "):
                text, remedy = one_line(error), "see limits.conf(5), and log in anew"
            return Finding(name, NO, text, remedy)
    return Finding(name, OK, "of open files, processes, memory and file sizes: enough")


def _require_file_size() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if 0 <= limit < _FILE_SIZE:
        raise Error(
            f"files may have {limit} bytes at most (RLIMIT_FSIZE), and a container takes "
            f"{_FILE_SIZE}: raise the limit (ulimit -f)"
        )


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
