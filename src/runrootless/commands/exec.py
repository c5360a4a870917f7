"""``exec``: a further process in a container, which may want to be another user.

Without such a wish runc makes the process from the derived bundle, which has all
that most engines need.  Otherwise the process is written out in full and given to
the runtime with ``--process``, because the runtime itself knows ID 0 only.
"""

from __future__ import annotations

import os

from runrootless import engines, fast_path, launcher, requirements
from runrootless.bundle import json_file, program
from runrootless.bundle.process import (
    set_home,
)
from runrootless.bundle.transform import MEMORY
from runrootless.command_line import runc as command_line
from runrootless.command_line.process import process_from_file, process_from_flags
from runrootless.containers import inside, state
from runrootless.errors import Error
from runrootless.runtimes import private_directory, user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.invocation import Invocation

    Process = dict[str, Any]
    Spec = dict[str, Any]

# Where nothing can come into being, while the runtime looks for a program without a launcher.
_NOWHERE = "/proc/runrootless"

_IN_THE_PROCESS = (
    "user",
    "additional-gids",
    "process",
    "cwd",
    "env",
    "tty",
    "cap",
    "no-new-privs",
    "apparmor",
    "process-label",
)


def prepare(invocation: Invocation) -> list[str]:
    """Return the runtime's command line for an ``exec``.

    What the runtime would refuse is left to it, and so is a container that is not ours.
    Raises ``Error`` for a process file that cannot be used, an unknown user, and a container
    of ours whose private directory cannot be used.
    """
    parsed = invocation.parse(command_line.EXEC)
    process_file = parsed.get("process")
    if parsed.error:
        from runrootless.command_line import own

        own.require_flags(parsed, (), command_line.EXEC)
    if parsed.error or parsed.is_on("help"):
        return invocation.refused()
    if not parsed.arguments[0 if process_file else 1 :]:
        return invocation.unchanged()
    container_id, *arguments = parsed.arguments
    state.require_valid_id(container_id)
    requirements.require_descriptors()
    requirements.require_processes(requirements.PROCESSES)
    root = invocation.state_root()
    directory = private_directory.find(container_id, root)
    if directory is None:
        if invocation.options.is_on("debug") and os.path.lexists(os.path.join(root, container_id)):
            _say_plain(invocation, container_id)
        return invocation.unchanged()
    # With a process in a file, that says whether it has a terminal.
    if parsed.is_on("tty") and not parsed.is_on("detach") and not process_file:
        requirements.require_terminal("exec --tty")
    pid = invocation.runtime.init_pid(os.path.join(root, container_id))
    if pid is not None:
        user_namespace.enter_around(pid, directory)
    try:
        spec = json_file.read(os.path.join(directory, state.CONFIG))
    except OSError as error:
        raise Error(f"cannot read the derived bundle {directory}: {error.strerror}") from None
    # The one that the container has: another one could not join it.
    engine = engines.load(spec[MEMORY]["engine"])
    if (
        spec[MEMORY]["engine"] in engines.WITH_LISTENER
        and pid is not None
        and _is_running(pid)
        and not state.is_served(directory)
        and not _is_listened_to(directory)
    ):
        raise Error(
            f"nothing more can be executed in {container_id}: the agent that emulates root there "
            "has ended (see --log); what runs in it can be killed, and the container deleted"
        )
    has_launcher = spec[MEMORY]["engine"] in engines.WITH_FILTER
    if has_launcher and pid and _is_running(pid) and inside.is_so(pid, inside.has_procfs) is False:
        raise Error(
            f"nothing can be executed in {container_id}: at its /proc there is no procfs any more, "
            "by which processes come under emulation"
        )
    preserved = command_line.preserved(parsed)
    first = launcher.first_free(preserved, invocation.runtime)

    def hand_in() -> int:
        from runrootless.derived_bundle import filter_program

        socket = f"{directory}/{state.LISTENER}"
        made = filter_program(spec[MEMORY])
        return launcher.hand_in(
            spec[MEMORY]["engine"], invocation.runtime, True, socket, first, made
        )

    def refusal(process: Process) -> list[str] | None:
        """Return None where the launcher starts a process, else what to add to its environment.

        Then the runtime is to say why there can be no process, or needs no launcher. Raises Error
        where nothing can be executed by the path.
        """
        if not has_launcher or pid is None or not _is_running(pid) or not process["args"]:
            return []
        if not program.is_missed_in(f"/proc/{pid}/root", process):
            return None
        # The first process may have changed its root. Of the root that this one gets it takes a
        # moment more to know.
        if "/" in process["args"][0]:
            # The container might make one before the runtime has looked, if that was asked.
            if reason := inside.said(pid, lambda: program.refusal(process)):
                raise Error(f"exec failed: unable to start container process: {reason}")
            return None
        # There is to be no program in any directory that there could be.
        is_missed = inside.is_so(pid, lambda: program.is_missed_in("/", process))
        return [f"PATH={_NOWHERE}"] if is_missed else None

    if (
        engine.EXECS_FROM_BUNDLE
        and invocation.runtime.execs_from_bundle()
        and not (process_file or parsed.get("user") or parsed.get_all("additional-gids"))
    ):
        process, _ = process_from_flags(spec, parsed, arguments)
        added = refusal(process)
        if added is None:
            preserved += hand_in()
            arguments = [launcher.path(first), *arguments]
        return invocation.runtime_command(
            [
                *parsed.without("preserve-fds"),
                *(f"--env={entry}" for entry in added or ()),
                *launcher.passing(preserved),
                "--",
                container_id,
                *arguments,
            ]
        )

    if process_file:
        process, identity = process_from_file(process_file)
    else:
        process, identity = process_from_flags(spec, parsed, arguments)
    set_home(process, identity, spec["root"]["path"])
    engine.apply_process(process, directory, identity)
    if spec[MEMORY].get("fast"):
        fast_path.preload(process)
    if spec[MEMORY]["engine"] == "proot":
        from runrootless.proot import relay

        relay.fork()
    added = refusal(process)
    if added is not None:
        process["env"] = [*(process.get("env") or ()), *added]
        path = _hand_over(process, first)
    else:
        process["args"] = [launcher.path(first), *process["args"]]
        # Above those that the launcher takes.
        path = _hand_over(process, first + 2)
        preserved += hand_in()
    return invocation.runtime_command(
        [
            *parsed.without(*_IN_THE_PROCESS, "preserve-fds"),
            *launcher.passing(preserved),
            f"--process={path}",
            "--",
            container_id,
        ]
    )


def _say_plain(invocation: Invocation, container_id: str) -> None:
    from runrootless.report import debug

    options = invocation.options
    message = f"{container_id} was not started by runrootless: nothing is emulated in it"
    debug(message, options.get("log"), options.get("log-format"))


def _is_listened_to(directory: str) -> bool:
    """Return whether somebody has the agent's socket, who may still be about to take the lock."""
    try:
        os.close(launcher.connect(f"{directory}/{state.LISTENER}"))
    except Error:
        return False
    return True


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read(4096).rpartition(b")")[2].split()[:1] != [b"Z"]
    except OSError:
        return False


def _hand_over(process: Process, first: int) -> str:
    """Return a path at which the runtime can read ``process``, and nobody needs to remove.

    It is a file in memory whose descriptor survives execve(2). It is not below ``first``: those
    are passed to the container, and all the others the runtimes close.
    """
    from fcntl import F_DUPFD, fcntl

    file = os.memfd_create("process.json")
    try:
        json_file.write_all(file, json_file.dump(process).encode())
        return f"/proc/self/fd/{fcntl(file, F_DUPFD, first)}"
    except OSError as error:
        raise Error(
            f"no file descriptor from {first} on for the process: {error.strerror}"
        ) from None
    finally:
        os.close(file)
