"""What emulates root in a container, and the choice between the ways to do it.

An engine is a module of this package that has what ``Engine`` names; to add one is to
add its name below.
"""

from __future__ import annotations

import os
from importlib import import_module

from runrootless.errors import Error, suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from runrootless.agent.settings import Settings
    from runrootless.bundle.identity import Identity
    from runrootless.launcher import Words

    class Engine(Protocol):
        """What the command line needs of an engine."""

        REAL_IDS: bool
        """Whether the container gets all IDs that the caller has, and not ID 0 alone."""

        IN_OWN_NAMESPACE: bool
        """Whether the runtime, and what is launched beside it, are to be in a user namespace of
        their own: ``runtimes.user_namespace``."""

        EXECS_FROM_BUNDLE: bool
        """Whether a further process that the runtime itself makes after the derived bundle,
        with other arguments, needs no ``apply_process``."""

        def obstacle(self) -> str | None:
            """Return why it cannot work on this host, as far as that is cheap to know."""

        def apply(self, spec: dict[str, Any], directory: str, identity: Identity) -> None:
            """Change a rootless spec in place so that its process is emulated."""

        def apply_process(
            self, process: dict[str, Any], directory: str, identity: Identity
        ) -> None:
            """Change a process that is to join a running container likewise."""

        def launch(self, settings: Settings) -> None:
            """Start what must run beside the container; return in the caller.

            Until the runtime has ended it keeps the lock file open, and it removes the
            container's directory unless there is a container then.
            """

        def emulate(self, log: str, log_format: str, debug: bool, words: Words) -> list[str]:
            """Emulate root for a command of the host: for this process from now on, or by the
            words that are returned, if they are put before the command. A launcher says with
            ``words`` what fails. Raises Error."""


AUTO = "auto"
# The engines of ``auto``, the best first; the others must be asked for.
_AUTOMATIC = ("notify", "proot")
NAMES = (*_AUTOMATIC, "thorough", "zero", "none")
WITH_FILTER = ("notify", "thorough", "zero")
"""The engines whose filter ``runrootless.launcher`` installs, which goes by their names."""

WITH_LISTENER = ("notify", "thorough")
"""Those that have an agent, and need a seccomp listener of their own."""


class Choice:
    """An engine, its ``name`` and, in a few words, the ``reason`` why it was taken.

    It is ``automatic`` where nobody has named it.
    """

    __slots__ = ("automatic", "engine", "name", "reason")

    def __init__(self, name: str, engine: Engine, reason: str, automatic: bool) -> None:
        self.name = name
        self.engine = engine
        self.reason = reason
        self.automatic = automatic


def choose(option: str, annotation: str) -> Choice:
    """Return the engine that the caller wants.

    ``option`` is the value of ``--engine``; where it is empty $RUNROOTLESS_ENGINE counts,
    and then the spec's ``annotation``. ``auto`` and nothing mean the best one that this
    host can do. Raises ``Error`` if there is no such engine, or it cannot work here.
    """
    # Where an engine is chosen, a spec has been read already: elsewhere it would take time.
    from runrootless.bundle.spec import ENGINE_ANNOTATION

    wishes = (
        (option, "--engine"),
        (os.environ.get("RUNROOTLESS_ENGINE", ""), "$RUNROOTLESS_ENGINE"),
        (annotation, f"the annotation {ENGINE_ANNOTATION}"),
    )
    name, source = next((wish for wish in wishes if wish[0]), (AUTO, ""))
    if name == AUTO:
        return _nested(_best())
    if name not in NAMES:
        raise Error(
            f"there is no engine {name}: {source} takes {', '.join(NAMES)} or {AUTO}"
            f"{suggestion(name, (*NAMES, AUTO))}"
        )
    engine = load(name)
    obstacle = engine.obstacle()
    if obstacle is not None:
        raise Error(f"the engine {name}, which {source} names, cannot work here: {obstacle}")
    return _nested(Choice(name, engine, f"{source} names it", False))


def _nested(choice: Choice) -> Choice:
    """Return the choice, or the engine nested where an agent already serves this process."""
    if choice.name in WITH_LISTENER:
        from runrootless.engines.notify import is_served

        if is_served():
            reason = "root is emulated here already"
            return Choice("nested", load("nested"), reason, choice.automatic)
    return choice


def _best() -> Choice:
    obstacles: list[str] = []
    for name in _AUTOMATIC:
        engine = load(name)
        obstacle = engine.obstacle()
        if obstacle is None:
            reason = "; ".join((*obstacles, "the best that this host can do"))
            return Choice(name, engine, reason, True)
        obstacles.append(f"{name} cannot work: {obstacle}")
    raise Error(
        f"{'; '.join(obstacles)}: --engine zero lets package managers finish without emulation"
    )


def load(name: str) -> Engine:
    """Return the engine called ``name``, one of ``NAMES`` or nested."""
    # Only the one that is used is worth the time of its import.
    engine: Engine = import_module(f"{__name__}.{name}")
    return engine
