"""The zero engine: calls that need root succeed and do nothing, by a filter alone.

It is the idea of Charliecloud's ``--force=seccomp``: package managers change owners and
identities, but hardly ever look at the result. So a seccomp filter answers those calls
with 0, and there is no agent. stat(2) and getuid(2) are the kernel's: everything is root's.

apt does look, after it has become the user that downloads. So it is told not to: a file
with that setting is mounted in the container's /dev, which is no part of the image, and
$APT_CONFIG names it, see apt.conf(5).
"""

from __future__ import annotations

import os
from stat import S_IFBLK, S_IFCHR, S_IFIFO, S_IFREG

from runrootless.bundle.json_file import write_all
from runrootless.containers import janitor, state
from runrootless.emulation.table import I386_TABLE, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runrootless.agent.settings import Settings
    from runrootless.bundle.identity import Identity
    from runrootless.emulation.table import Condition
    from runrootless.launcher import Words

REAL_IDS = False
IN_OWN_NAMESPACE = False
EXECS_FROM_BUNDLE = True

# The handlers, of those that the notify engine has, whose calls change what only root may.
_TARGETS = ("chown.", "nodes.", "capabilities.capset", "ids.set")
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


def apply(spec: dict[str, Any], directory: str, identity: Identity) -> None:
    """Give a rootless spec what the filter needs, and apt's setting. Raises OSError."""
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
    # The launcher may load a filter then, and the runtime its own last.
    process["noNewPrivileges"] = True
    if not os.path.exists(f"{directory}/{_APT_FILE}"):
        return
    environment = process.setdefault("env", [])
    if not any(entry.startswith(f"{_APT_VARIABLE}=") for entry in environment):
        environment.append(f"{_APT_VARIABLE}={_APT_PATH}")


def launch(settings: Settings) -> None:
    """Have the directory removed when the container is gone. Raises OSError."""
    janitor.attend(settings.directory, settings.state_directory, settings.lock_fd)


def emulate(log: str, log_format: str, debug: bool, words: Words) -> list[str]:
    """Return the words that run a command of the host whose calls succeed. Raises Error."""
    from runrootless.engines.notify_host import become_root, before_command
    from runrootless.linux.process import set_no_new_privileges

    before = before_command("zero", words)
    become_root()
    set_no_new_privileges()
    return before


def filter_program(machine: str, denied: Sequence[str] = ()) -> bytes:
    """Return the filter for a machine as BPF instructions, which leaves some calls alone.

    Raises KeyError if the machine is not known.
    """
    from runrootless.emulation.seccomp_filter import build
    from runrootless.linux.seccomp import RETURN_ERRNO

    return build(machine, RETURN_ERRNO, [row for row in _rows() if row[0] not in denied])


def calls() -> list[str]:
    """Return the names of the calls that succeed."""
    return [name for name, _, _ in _rows()]


def _rows() -> list[tuple[str, str, Condition | None]]:
    """Return rows as in the notify engine's table, of the calls that are to succeed."""
    rows: dict[str, tuple[str, str, Condition | None]] = {}
    for name, target, _ in (*TABLE, *I386_TABLE):
        if target.startswith(_TARGETS):
            index = _MODES.get(name)
            test = None if index is None else (index, "SCMP_CMP_MASKED_EQ", _TYPE_BITS, _DEVICE)
            rows[name] = name, target, test
    return list(rows.values())


def _is_furnished_dev(mount: dict[str, Any]) -> bool:
    """Return whether a mount makes /dev a file system of the container's own."""
    return mount.get("destination", "").rstrip("/") == "/dev" and mount.get("type") == "tmpfs"
