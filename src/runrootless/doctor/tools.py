"""Programs that runrootless uses: OCI runtimes, PRoot, newuidmap."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess

from runrootless import runtimes
from runrootless.doctor.finding import INFO, NO, OK, Finding, read
from runrootless.errors import one_line

_SECONDS = 10
_CGROUPS = "/sys/fs/cgroup"
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def oci_runtimes() -> list[Finding]:
    """Return a finding for each OCI runtime that is installed, one that says so if none is."""
    found = [_runtime(name) for name in (*runtimes.KNOWN, "youki")]
    there = [finding for finding in found if finding is not None]
    if there:
        return there
    text = "neither runc nor crun is installed: `run` needs one, `emulate` does not"
    return [Finding("OCI runtime", NO, text, "as root: apt-get install runc (or crun)")]


def _runtime(name: str) -> Finding | None:
    path = runtimes.find(name)
    if path is None:
        return None
    try:
        output = _output(path, "--version")
    except OSError as error:
        return Finding(name, NO, f"{path} cannot be executed: {one_line(error)}")
    version = output.split("\n", 1)[0].removeprefix(f"{name} version").strip()
    text = f"{version or 'of unknown version'} ({path})"
    refused = _refused_cgroups() if name == "crun" else ""
    if refused:
        return Finding(name, NO, f"{text}: {refused}", "take --runtime runc, or cgroups v2 alone")
    if name == "runc" and not _has_cgroups():
        return Finding(
            name,
            NO,
            f"{text}: it starts no container where no cgroups are mounted",
            f"as root: mount -t cgroup2 none {_CGROUPS}; `emulate` does without",
        )
    return Finding(name, OK, text)


def _refused_cgroups() -> str:
    """Return what is in crun's way: libcrun_cgroup_enter() and detect_cgroup_mode() there."""
    kinds = {}
    for line in read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        # The last one is on top.
        kinds[before.split()[4]] = after.split(" ", 1)[0]
    kind = kinds.get(_CGROUPS)
    if kind == "cgroup2":
        return ""
    if kind != "tmpfs":
        return f"it needs cgroups at {_CGROUPS}"
    controllers = ""
    if kinds.get(f"{_CGROUPS}/unified") == "cgroup2":
        controllers = read(f"{_CGROUPS}/unified/cgroup.controllers").replace(" ", ", ")
    if not controllers:
        return ""
    return f"it refuses a hybrid layout of cgroups whose v2 has controllers ({controllers})"


def _has_cgroups() -> bool:
    """Return whether a cgroup file system of any kind is mounted."""
    return any(
        line.partition(" - ")[2].startswith("cgroup")
        for line in read("/proc/self/mountinfo").splitlines()
    )


def proot() -> Finding:
    """Return which PRoot there is."""
    path = os.environ.get("RUNROOTLESS_PROOT") or shutil.which("proot")
    if path is None:
        return Finding("PRoot", INFO, "not installed; needed only where seccomp notify is not had")
    try:
        output = _output(path, "--version")
    except OSError as error:
        return Finding("PRoot", INFO, f"{path} cannot be executed: {one_line(error)}")
    words = output.replace("|", " ").replace("_", " ").split()
    version = next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), "")
    return Finding("PRoot", INFO, f"{version or 'of unknown version'} ({path})")


def subordinate_ids() -> Finding:
    """Return the caller's ranges of subordinate IDs."""
    try:
        names = [pwd.getpwuid(os.geteuid()).pw_name, str(os.geteuid())]
    except KeyError:
        names = [str(os.geteuid())]
    ranges = []
    for path in ("/etc/subuid", "/etc/subgid"):
        for line in read(path).splitlines():
            name, _, numbers = line.partition(":")
            start, _, count = numbers.partition(":")
            if name in names and start.isdigit() and count.isdigit():
                ranges.append(f"{path} has {count} from {start} on")
    text = "; ".join(ranges) or f"none in /etc/subuid and /etc/subgid for {names[0]}; none needed"
    return Finding("subordinate IDs", INFO, text)


def newuidmap() -> Finding:
    """Return whether subordinate IDs can be mapped."""
    parts = []
    for name in ("newuidmap", "newgidmap"):
        path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")
        if path is None:
            parts.append(f"no {name}")
            continue
        mode = os.stat(path).st_mode
        capable = mode & stat.S_ISUID or _has_capabilities(path)
        parts.append(path if capable else f"{path} without its set-user-ID bit")
    return Finding("newuidmap", INFO, "; ".join(parts))


def _has_capabilities(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def _output(*command: str) -> str:
    """Return what a command prints, nothing where that takes too long. Raises OSError."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout
