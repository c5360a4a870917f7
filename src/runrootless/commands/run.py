"""``run`` and ``create``: the runtime, on a bundle derived from the user's."""

from __future__ import annotations

import os

from runrootless import interrupts, launcher, requirements
from runrootless.agent.settings import Settings
from runrootless.bundle import place
from runrootless.bundle.hooks import replacement
from runrootless.command_line import runc as command_line
from runrootless.containers import garbage, state
from runrootless.derived_bundle import derive, explain
from runrootless.errors import Error, one_line
from runrootless.runtimes import user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.command_line.runc import Parsed
    from runrootless.engines import Choice
    from runrootless.invocation import Invocation


def read(invocation: Invocation) -> Parsed | None:
    """Return what a ``run`` or ``create`` is told, its one argument being the container's ID.

    None where no container is to be started, as the runtime is to say. Raises ``Error`` for
    mistakes that it could not tell of.
    """
    flags = command_line.RUN if invocation.command == "run" else command_line.CREATE
    parsed = invocation.parse(flags, flags_anywhere=True, count=1)
    if parsed.error:
        from runrootless.command_line import own

        own.require_flags(parsed, own.STARTING, flags)
    if parsed.error or parsed.is_on("help") or len(parsed.arguments) != 1:
        return None
    # crun takes this name alone from the bundle on.
    parsed.replace("config", lambda path: path if path == state.CONFIG else os.path.abspath(path))
    return parsed


def prepare(invocation: Invocation) -> list[str]:
    """Return the runtime's command line for a ``run`` or ``create``, all else done.

    What the runtime would refuse is left to it, so that the user reads its words.
    When this returns with a derived bundle, the engine is waiting for the runtime
    to be executed by this process. If that does not happen, what the engine has
    started ends with this process, and removes the container's directory.

    Raises ``Error`` for a bundle that cannot be run, and a container that exists, and
    SystemExit where a container has run that no runtime could carry.
    """
    parsed = read(invocation)
    if parsed is None:
        return invocation.refused()
    container_id = parsed.arguments[0]
    state.require_valid_id(container_id)

    requirements.require_descriptors()
    requirements.require_processes(requirements.PROCESSES)
    options = invocation.options
    base = state.open_base()
    garbage.collect(base)
    root = invocation.state_root()
    interrupts.hold()
    directory = state.create_container_directory(base, container_id, root)
    # A failure removes it.
    invocation.directory = directory.path
    bundle = parsed.get("bundle") or "."
    config = parsed.get("config") or state.CONFIG
    preserved = command_line.preserved(parsed)
    first = launcher.first_free(preserved, invocation.runtime)
    derived = derive(
        options.get("engine"),
        bundle,
        config,
        directory.path,
        options.is_on("systemd-cgroup"),
        parsed.get("network"),
        first,
        parsed.get("dns"),
        invocation.runtime.gives_hooks_descriptors(),
        options.get("fast-path"),
        invocation.runtime.opens_devices(),
    )
    choice = derived.choice
    for note in derived.notes:
        _warn(invocation, note)
    if (
        derived.terminal
        and invocation.command == "run"
        and not parsed.is_on("detach")
        and invocation.runtime.needs_a_terminal()
    ):
        requirements.require_terminal("the bundle (process.terminal)")
    requirements.require_room(base)
    if options.is_on("debug"):
        _explain(invocation, f"engine {choice.name}: {choice.reason}")
        if derived.slow is not None:
            _explain(invocation, f"no fast path: {derived.slow}")
        _explain(invocation, *explain(bundle, config, directory.path))
        if refusal := state.runtime_directory_refusal():
            _explain(invocation, f"{refusal}: {base} is used")
        _explain(invocation, *place.remarks(derived.rootfs))
    if warning := place.warning(derived.rootfs):
        from runrootless.report import report

        report(warning, options.get("log"), options.get("log-format"), "warning")
    # What is launched has to be in it too.
    if derived.neighbour is not None and derived.neighbour.user_namespace:
        if choice.engine.IN_OWN_NAMESPACE:
            # Only from there can the container's be joined.
            user_namespace.enter_around(derived.neighbour.pid, derived.neighbour.directory)
    elif choice.engine.IN_OWN_NAMESPACE and not user_namespace.enter_new(invocation.runtime.path):
        state.remove_container_directory(directory.path)
        os.close(directory.lock_fd)
        interrupts.let_through()
        raise SystemExit(_run_without(invocation, parsed, choice))
    user_namespace.note(directory.path)
    choice.engine.launch(
        Settings(
            directory.path,
            directory.lock_fd,
            os.path.join(root, container_id),
            options.get("log"),
            options.get("log-format"),
            options.is_on("debug"),
            derived.side_stores,
            derived.rootfs,
            terminal_group=derived.terminal_group,
            fast_path=derived.fast_path,
            devices=derived.devices,
        )
    )
    # Now what was launched removes it, when this process ends without a container. Both at
    # once would have the agent complain in the log, where callers look for our error.
    invocation.directory = None
    handed = 0
    if derived.filter is not None:
        handed = launcher.hand_in(
            choice.name,
            invocation.runtime,
            False,
            f"{directory.path}/{state.LISTENER}",
            first,
            derived.filter,
            derived.hooks,
            replacement(directory.path, bundle) if derived.hooks else (b"", b""),
        )
    interrupts.let_through()
    # These the runtime takes from the bundle on, which is another one by now.
    for name in ("console-socket", "pidfd-socket", *invocation.runtime.paths_in_bundle()):
        parsed.replace(name, lambda path: os.path.join(os.path.abspath(bundle), path))
    return invocation.runtime_command(
        [
            *parsed.without("bundle", "config", "network", "dns", "preserve-fds"),
            *launcher.passing(preserved + handed),
            f"--bundle={directory.path}",
            "--",
            container_id,
        ]
    )


def _run_without(invocation: Invocation, parsed: Parsed, choice: Choice) -> int:
    """Run a container where there are no user namespaces; return the exit code."""
    obstacle = user_namespace.obstacle()
    if not choice.automatic and choice.name != "proot":
        raise Error(f"{obstacle}, which the engine {choice.name} needs: take --engine proot")
    from runrootless.proot_runtime.start import run

    return run(invocation, parsed, obstacle)


def _warn(invocation: Invocation, line: str) -> None:
    from runrootless.report import report

    options = invocation.options
    # What is in the bundle may be anything.
    line = one_line(Error(line))
    report(line, options.get("log"), options.get("log-format"), "warning")


def _explain(invocation: Invocation, *lines: str) -> None:
    from runrootless.report import debug

    options = invocation.options
    for line in lines:
        debug(line, options.get("log"), options.get("log-format"))
