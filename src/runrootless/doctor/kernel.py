"""The kernel: its version, and what it or its configuration refuses."""

from __future__ import annotations

import errno
import os
from functools import partial

from runrootless.doctor.finding import INFO, NO, OK, Finding, error_of, in_child, read
from runrootless.linux import ptrace, seccomp
from runrootless.linux.bpf import finish
from runrootless.linux.mounts import mount_proc
from runrootless.linux.namespaces import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, unshare
from runrootless.linux.process import set_no_new_privileges

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MINIMUM = (5, 9)
_SYNC_WAKE_UP = (6, 6)

_DISTRIBUTION_SWITCH = "kernel.unprivileged_userns_clone"
_LIMIT = "user.max_user_namespaces"
_APPARMOR = "kernel.apparmor_restrict_unprivileged_userns"
_ENOUGH = 15000


def kernel() -> Finding:
    """Return the kernel's version."""
    system = os.uname()
    text = f"{system.sysname} {system.release} {system.machine}"
    version = _version(system.release)
    if version < _MINIMUM:
        return Finding(
            "kernel",
            NO,
            f"{text}: older than 5.9, the first that emulation works with",
            "install a newer kernel",
        )
    if version < _SYNC_WAKE_UP:
        text += "; emulation is faster from 6.6 on"
    return Finding("kernel", OK, text)


def user_namespaces() -> Finding:
    """Make a user namespace, map the caller to root in it, and a mount namespace besides."""
    name = "user namespaces"
    result = in_child(_try_user_namespace)
    if not any(result.values()):
        return Finding(name, OK, "made one, with a mount namespace in it, and root's ID mapped")
    step, number = next((step, number) for step, number in result.items() if number)
    text, remedy = _what_blocks(number)
    return Finding(
        name, NO, f"{step} fails with {errno.errorcode.get(number, number)}: {text}", remedy
    )


def _try_user_namespace() -> dict[str, int]:
    uid, gid = os.geteuid(), os.getegid()
    steps: dict[str, Callable[[], None]] = {"making one": partial(unshare, CLONE_NEWUSER)}
    for file, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        steps[f"writing {file}"] = partial(_write, f"/proc/self/{file}", line)
    steps["a mount namespace in it"] = partial(unshare, CLONE_NEWNS)
    result = {}
    for step, call in steps.items():
        result[step] = error_of(call)
        if result[step]:
            break
    return result


def _what_blocks(number: int) -> tuple[str, str]:
    """Return what keeps user namespaces from the caller, and what mends it."""
    if _sysctl(_LIMIT) == "0":
        return f"{_LIMIT} is 0", f"as root: sysctl -w {_LIMIT}={_ENOUGH}"
    if number in (errno.ENOSPC, errno.EUSERS):
        return (
            f"{_LIMIT} ({_sysctl(_LIMIT)}) is used up here or in a namespace around this one",
            f"as root of the host: sysctl -w {_LIMIT}={_ENOUGH}",
        )
    if _sysctl(_DISTRIBUTION_SWITCH) == "0":
        return f"{_DISTRIBUTION_SWITCH} is 0", f"as root: sysctl -w {_DISTRIBUTION_SWITCH}=1"
    if _sysctl(_APPARMOR) == "1":
        return (
            f"AppArmor restricts them, {_APPARMOR} is 1",
            f"as root: sysctl -w {_APPARMOR}=0",
        )
    if number in (errno.EINVAL, errno.ENOSYS) and not os.path.exists("/proc/self/ns/user"):
        return "the kernel is built without them", "install a kernel with CONFIG_USER_NS"
    if _filtered():
        return (
            "a seccomp filter refuses them, of a container around this process probably",
            "start that container with --security-opt seccomp=unconfined, or in Kubernetes"
            " with seccompProfile.type: Unconfined",
        )
    return (
        "no sysctl forbids them; a chroot around this process would, or a security module",
        "look at `dmesg` as root, and try outside of any chroot",
    )


def proc() -> Finding:
    """Mount a new procfs in new namespaces, as OCI runtimes do for each container."""
    name = "/proc"
    result = in_child(_try_proc)
    if not result:
        return Finding(name, INFO, "not tried: it takes a user namespace")
    number = result["mount"]
    if number == 0:
        return Finding(name, OK, "a new one can be mounted in a container")
    if number == errno.EPERM:
        masks = _masks()
        where = f" ({', '.join(masks[:3])}{', ...' if len(masks) > 3 else ''})" if masks else ""
        return Finding(
            name,
            NO,
            f"parts of it are masked{where}, so no new one can be mounted: OCI runtimes fail,"
            " and `emulate` works",
            "start the container around this one with --security-opt systempaths=unconfined"
            " (podman: unmask=ALL; Kubernetes: procMount: Unmasked)",
        )
    return Finding(name, NO, f"mounting a new one fails: {os.strerror(number)}", "look at `dmesg`")


def _try_proc() -> dict[str, int]:
    if any(_try_user_namespace().values()):
        return {}
    unshare(CLONE_NEWPID)
    return in_child(lambda: {"mount": error_of(lambda: mount_proc(b"/proc"))})


def _masks() -> list[str]:
    """Return where something is mounted in /proc."""
    points = [line.split()[4] for line in read("/proc/self/mountinfo").splitlines()]
    return [point for point in points if point.startswith("/proc/")]


def seccomp_notify() -> Finding:
    """Install a filter with a listener, and set the listener's flags."""
    name = "seccomp notify"
    flags = in_child(lambda: _try_listener(0))
    number = flags.get("listener", -1)
    if number == errno.EBUSY:
        return Finding(
            name,
            INFO,
            "this process has a listener already, and there can be one only: root is being"
            " emulated here, or LXD serves this container",
        )
    if number:
        text = os.strerror(number) if number > 0 else "the process ended"
        remedy = "install Linux 5.9 or newer, with CONFIG_SECCOMP_FILTER"
        if number in (errno.EPERM, errno.EACCES):
            remedy = "start the container around this process without a seccomp profile"
        return Finding(name, NO, f"no listener can be had: {text}", remedy)
    if ptrace.scope() == ptrace.NOBODY:
        return Finding(
            name,
            NO,
            "kernel.yama.ptrace_scope is 3, so nobody can read the arguments of calls",
            "as root: a lower kernel.yama.ptrace_scope in /etc/sysctl.d, and a reboot",
        )
    killable = in_child(lambda: _try_listener(seccomp.FILTER_WAIT_KILLABLE_RECEIVE))
    text = "a listener can be had" + (", with SYNC_WAKE_UP" if flags["sync"] == 0 else "")
    return Finding(name, OK, f"{text}; {_interruptions(killable.get('listener') == 0)}")


def _interruptions(killable: bool) -> str:
    """Return what signals do to calls that the agent has received."""
    if killable:
        return "with WAIT_KILLABLE_RECV: signals interrupt no call that the agent has received"
    return (
        "without WAIT_KILLABLE_RECV, which Linux 5.19 has: signals may interrupt calls that were"
        " carried out, which are undone or done once more"
    )


def _try_listener(flags: int) -> dict[str, int]:
    set_no_new_privileges()
    try:
        listener = seccomp.install(
            finish(seccomp.RETURN_ALLOW), seccomp.FILTER_NEW_LISTENER | flags
        )
    except OSError as error:
        return {"listener": error.errno or -1}
    sync = error_of(lambda: seccomp.set_flags(listener, seccomp.FD_SYNC_WAKE_UP))
    return {"listener": 0, "sync": sync}


def _filtered() -> bool:
    return "\nSeccomp:\t2" in read("/proc/self/status")


def _sysctl(name: str) -> str:
    return read(f"/proc/sys/{name.replace('.', '/')}")


def _version(release: str) -> tuple[int, int]:
    numbers = [int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit()]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
