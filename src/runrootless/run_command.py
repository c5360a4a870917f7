"""``run`` and ``create``: the runtime, on a bundle derived from the user's."""

from __future__ import annotations

import os

from runrootless import command_line, engines, state
from runrootless.derived_bundle import derive, explain
from runrootless.runtimes import user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.cli import Invocation


def prepare(invocation: Invocation) -> list[str]:
    """Return the runtime's command line for a ``run`` or ``create``, all else done.

    What the runtime would refuse is left to it, so that the user reads its words.
    When this returns with a derived bundle, the engine is waiting for the runtime
    to be executed by this process. If that does not happen, what the engine has
    started ends with this process, and removes the container's directory.

    Raises ``Error`` for a bundle that cannot be run, and a container that exists.
    """
    flags = command_line.RUN if invocation.command == "run" else command_line.CREATE
    parsed = invocation.parse(flags, flags_anywhere=True)
    if parsed.error or parsed.is_on("help") or len(parsed.arguments) != 1:
        return invocation.unchanged()
    container_id = parsed.arguments[0]
    if not state.is_valid_id(container_id):
        return invocation.unchanged()

    options = invocation.options
    engine = engines.choose(options.get("engine"))
    base = state.open_base()
    state.collect_garbage(base)
    root = invocation.state_root()
    directory = state.create_container_directory(base, container_id, root)
    # A failure removes it.
    invocation.directory = directory.path
    bundle = parsed.get("bundle") or "."
    config = parsed.get("config") or state.CONFIG
    derive(engine, bundle, config, directory.path, options.is_on("systemd-cgroup"))
    if options.is_on("debug"):
        _explain(invocation, explain(bundle, config, directory.path))
    # The agent too has to be in it.
    user_namespace.enter_new()
    engine.launch(
        directory.path,
        directory.lock_fd,
        os.path.join(root, container_id),
        options.get("log"),
        options.get("log-format"),
        options.is_on("debug"),
    )
    # Now the agent removes it, when this process ends without a container. Both at
    # once would have the agent complain in the log, where callers look for our error.
    invocation.directory = None
    # These the runtime takes from the bundle on, which is another one by now.
    for name in ("console-socket", "pidfd-socket", *invocation.runtime.paths_in_bundle()):
        parsed.replace(name, lambda path: os.path.join(os.path.abspath(bundle), path))
    return invocation.runtime_command(
        [*parsed.without("bundle", "config"), f"--bundle={directory.path}", "--", container_id]
    )


def _explain(invocation: Invocation, lines: list[str]) -> None:
    from runrootless.report import report

    options = invocation.options
    for line in lines:
        report(line, options.get("log"), options.get("log-format"), "debug")
