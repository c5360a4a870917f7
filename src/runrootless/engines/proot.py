"""The PRoot engine: PRoot runs the container's command and fakes root by ptrace(2).

It is in the container on a tmpfs of its own, which is its temporary directory as well.
"""

from __future__ import annotations

import os
from errno import ENOSYS, EPERM

from runrootless import interrupts, runtimes
from runrootless.bundle import json_file
from runrootless.bundle.host import HostFacts
from runrootless.bundle.refusals import refuse
from runrootless.containers.state import PROOT
from runrootless.errors import Error
from runrootless.proot import attendant, command, relay
from runrootless.proot.provision import provide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.agent.settings import Settings
    from runrootless.bundle.identity import Identity
    from runrootless.launcher import Words

REAL_IDS = False
IN_OWN_NAMESPACE = True
EXECS_FROM_BUNDLE = False

_DIRECTORY = "/dev/proot"
_PROGRAM = f"{_DIRECTORY}/proot"
_LOADER = f"{_DIRECTORY}/loader"
_LIBRARIES = f"{_DIRECTORY}/lib"
# In a user namespace the kernel refuses an owner that is not mapped with EINVAL, and PRoot
# pretends success at EPERM only.
_CHOWN = ("chown", "chown32", "fchown", "fchown32", "fchownat", "lchown", "lchown32")


def obstacle() -> str | None:
    """Return None: where PRoot is not installed, it is downloaded."""
    return None


def apply(spec: dict[str, Any], directory: str, identity: Identity) -> None:
    """Make a rootless spec one whose process runs under PRoot.

    ``directory`` is the container's private directory, and ``identity`` whom the first
    process is to be. Raises Error if no PRoot can be had.
    """
    with interrupts.Raised():
        # It may take a download.
        program = provide()
    host = HostFacts()
    mounts = spec["mounts"]
    mounts.append(
        {
            "destination": _DIRECTORY,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "exec", "mode=755"],
        }
    )
    files = {_PROGRAM: program.path}
    if program.loader:
        files[_LOADER] = program.loader
    files.update({f"{_LIBRARIES}/{name}": path for name, path in program.libraries.items()})
    for destination, source in files.items():
        options = ["bind", "ro", "nosuid", "nodev"]
        locked = host.locked_mount_options(source)
        mounts.append(
            {
                "destination": destination,
                "type": "bind",
                "source": os.path.realpath(source),
                "options": options + [option for option in locked if option not in options],
            }
        )
    refusals: dict[int, tuple[str, ...]] = {
        ENOSYS: command.UNTRANSLATED + command.UNTRANSLATED_LATER
    }
    # With its own filter PRoot is not told of a call that this one refuses.
    if not command.wants_seccomp():
        refusals[EPERM] = _CHOWN
    linux = spec["linux"]
    linux["seccomp"] = _with_avoided_calls(refuse(linux.get("seccomp"), refusals))
    words = command.words(program, _PROGRAM, _LOADER, _LIBRARIES)
    json_file.write(f"{directory}/{PROOT}", words)
    apply_process(spec["process"], directory, identity)


def _with_avoided_calls(profile: dict[str, Any]) -> dict[str, Any]:
    """Return ``profile`` such that PRoot may give a call the number -2, so that it fails.

    To libseccomp that is a call of the x32 ABI, which ends the process unless the profile is
    for that ABI too.
    """
    architectures = profile.get("architectures") or []
    if "SCMP_ARCH_X86_64" in architectures and "SCMP_ARCH_X32" not in architectures:
        return {**profile, "architectures": [*architectures, "SCMP_ARCH_X32"]}
    return profile


def apply_process(process: dict[str, Any], directory: str, identity: Identity) -> None:
    """Put PRoot before the command of a process (OCI runtime spec, ``process``)."""
    # The runtime then loads the filter last, after its own setuid and setgroups.
    process["noNewPrivileges"] = True
    process["args"] = [*_words(directory), *command.identity_options(identity), *process["args"]]
    process["env"] = command.with_environment(process.get("env") or [], _DIRECTORY)


def launch(settings: Settings) -> None:
    """Stay beside the container, and pass signals on to it.

    Returns in a child of the caller, which becomes the runtime. The caller itself waits for it:
    PRoot ignores the signals that the runtime sends it, so they are sent to what runs under it.
    """
    attendant.attend(
        settings.directory,
        settings.lock_fd,
        settings.state_directory,
        lambda: runtimes.init_pid(settings.state_directory),
        _words(settings.directory)[0],
    )
    relay.fork()


def emulate(log: str, log_format: str, debug: bool, words: Words) -> list[str]:
    """Return the words that run a command of the host under PRoot. Raises Error."""
    from runrootless.proot.filter import refuse, refuse_untranslated_calls

    program = provide()
    refuse_untranslated_calls()
    if not command.wants_seccomp():
        refuse(_CHOWN, EPERM)
        os.environ[command.NO_SECCOMP] = "1"
    return [program.path, "-0"]


def _words(directory: str) -> list[str]:
    try:
        words: list[str] = json_file.read(f"{directory}/{PROOT}")
    except OSError as error:
        raise Error(f"cannot read {directory}/{PROOT}: {error.strerror}") from None
    return words
