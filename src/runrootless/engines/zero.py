"""The zero engine: what needs root succeeds and does nothing, and the kernel itself says so.

It is the idea of Charliecloud's ``--force=seccomp``: package managers change owners and
identities, but hardly ever look at the result. So a seccomp filter answers those calls
with 0, and there is no agent. What is asked (stat(2), getuid(2)) tells the truth: all is
root's.

apt does look, after it has become the user that downloads. So it is told not to: a file
with that setting is mounted in the container's /dev, which is no part of the image, and
$APT_CONFIG names it, see apt.conf(5).
"""

from __future__ import annotations

import os
from stat import S_IFBLK, S_IFCHR, S_IFIFO, S_IFREG

from runrootless import janitor, state
from runrootless.bundle.json_file import write_all
from runrootless.bundle.profile import install
from runrootless.emulation.table import I386_TABLE, TABLE
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.agent.launch import Settings
    from runrootless.bundle.identity import Identity
    from runrootless.emulation.table import Condition
    from runrootless.runtimes import Runtime

REAL_IDS = False
IN_OWN_NAMESPACE = False
EXECS_FROM_BUNDLE = True

# The handlers, of those that the notify engine has, whose calls change what only root may.
_TARGETS = ("chown.", "nodes.", "capabilities.capset", "identity.set")
# Where mknod(2) and mknodat(2) take the mode; that of a device has the one bit of these that
# no other type has alone, so that one condition tells both types from all others.
_MODES = {"mknod": 1, "mknodat": 2}
_TYPE_BITS = S_IFREG | S_IFCHR | S_IFIFO
_DEVICE = S_IFCHR & S_IFBLK

_APT_FILE = "apt.conf"
_APT_SETTINGS = b'APT::Sandbox::User "root";\n'
_APT_PATH = "/dev/runrootless/apt.conf"
_APT_VARIABLE = "APT_CONFIG"


def obstacle() -> str | None:
    """Return None: no kernel that can do containers is without seccomp filters."""
    return None


def apply(spec: dict[str, Any], directory: str, identity: Identity, runtime: Runtime) -> None:
    """Add the filter to a rootless spec, and apt's setting. Raises Error."""
    install(spec["linux"], seccomp_rules(), None)
    if any(_is_furnished_dev(mount) for mount in spec["mounts"]):
        path = f"{directory}/{_APT_FILE}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, state.MODE)
        try:
            write_all(file, _APT_SETTINGS)
        finally:
            os.close(file)
        spec["mounts"].append(
            {
                "destination": _APT_PATH,
                "type": "bind",
                "source": path,
                "options": ["bind", "nosuid", "nodev", "noexec", "ro"],
            }
        )
    apply_process(spec["process"], directory, identity)


def apply_process(process: dict[str, Any], directory: str, identity: Identity) -> None:
    """Give a process (OCI runtime spec, ``process``) what the filter needs and apt reads."""
    # The runtime then loads the filter last: before that its own setuid and capset count.
    process["noNewPrivileges"] = True
    if not os.path.exists(f"{directory}/{_APT_FILE}"):
        return
    environment = process.setdefault("env", [])
    if not any(entry.startswith(f"{_APT_VARIABLE}=") for entry in environment):
        environment.append(f"{_APT_VARIABLE}={_APT_PATH}")


def launch(settings: Settings) -> None:
    """Have the directory removed when the container is gone. Raises OSError."""
    janitor.attend(settings.directory, settings.state_directory, settings.lock_fd)


def emulate(log: str, log_format: str, debug: bool) -> list[str]:
    """Let the calls succeed in this process and its children, on the host. Raises Error."""
    from runrootless.emulation.seccomp_filter import MACHINES
    from runrootless.engines.notify_host import become_root
    from runrootless.linux import process, seccomp

    machine = os.uname().machine
    if machine not in MACHINES:
        raise Error(f"the system calls of {machine} are not known: use --engine proot")
    become_root()
    process.set_no_new_privileges()
    seccomp.install(filter_program(machine), seccomp.FILTER_SPEC_ALLOW)
    return []


def filter_program(machine: str) -> bytes:
    """Return the filter for a machine as BPF instructions. Raises KeyError if it is not known."""
    from runrootless.emulation.seccomp_filter import build
    from runrootless.linux.seccomp import RETURN_ERRNO

    return build(machine, RETURN_ERRNO, _rows())


def seccomp_rules() -> list[dict[str, Any]]:
    """Return the rules as ``linux.seccomp.syscalls`` of the OCI runtime spec."""
    rows = _rows()
    rules: list[dict[str, Any]] = [_rule([name for name, _, test in rows if test is None])]
    for name, _, test in rows:
        if test is not None:
            index, operator, value, value_two = test
            condition = {"index": index, "value": value, "valueTwo": value_two, "op": operator}
            rules.append({**_rule([name]), "args": [condition]})
    return rules


def _rows() -> list[tuple[str, str, Condition | None]]:
    """Return rows as in the notify engine's table, of the calls that are to succeed."""
    rows: dict[str, tuple[str, str, Condition | None]] = {}
    for name, target, _ in (*TABLE, *I386_TABLE):
        if target.startswith(_TARGETS):
            index = _MODES.get(name)
            test = None if index is None else (index, "SCMP_CMP_MASKED_EQ", _TYPE_BITS, _DEVICE)
            rows[name] = name, target, test
    return list(rows.values())


def _rule(names: list[str]) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 0}


def _is_furnished_dev(mount: dict[str, Any]) -> bool:
    """Return whether a mount makes /dev a file system of the container's own."""
    return mount.get("destination", "").rstrip("/") == "/dev" and mount.get("type") == "tmpfs"
