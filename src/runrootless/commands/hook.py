"""``hook``: emulation for a container that a runtime starts by itself (OCI config.md, "Hooks")."""

from __future__ import annotations

import json
import os
import sys

from runrootless import engines
from runrootless.bundle import name_service, unaided
from runrootless.bundle.accounts import resolve
from runrootless.bundle.host import HostFacts
from runrootless.bundle.identity import Identity
from runrootless.bundle.mounts import terminal_group
from runrootless.bundle.spec import DNS_ANNOTATION, ENGINE_ANNOTATION, USER_ANNOTATION, load
from runrootless.command_line import own
from runrootless.command_line.runc import HOOK
from runrootless.derived_bundle import restore_owners
from runrootless.engines import notify, notify_traced
from runrootless.errors import Error, one_line
from runrootless.integrations import oci_hooks
from runrootless.linux import limits
from runrootless.report import report
from runrootless.runtimes import late_mounts
from runrootless.tracing import subjects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runrootless.command_line.runc import Parsed

# The annotations of config.json are in it.
_STATE_SIZE = 64 << 20
_STATUSES = ("creating", "created")
_ROOT = Identity(0, 0)
# The group that every distribution has, and that regular bundles and engines name.
_TTY = 5


def run(options: Parsed) -> int:
    """Do as the command line says; return the exit code. Raises ``Error``, ``OSError``."""
    parsed = own.parse("hook", HOOK, options.arguments[1:])
    if parsed is None:
        return 0
    if parsed.get("check"):
        return _check(parsed.get("check"))
    if parsed.is_on("install") or parsed.is_on("uninstall"):
        path = oci_hooks.path(parsed.get("hooks-dir"))
        if parsed.is_on("uninstall"):
            oci_hooks.remove(path)
        else:
            oci_hooks.write(path, os.path.abspath(sys.argv[0]), always=parsed.is_on("always"))
        print(path)
        return 0
    if sys.stdin.isatty():
        raise Error(
            "hook is for runtimes, which write the container's state to it: `runrootless hook "
            "--install` tells podman of it, and docs/hooks.md how others are told"
        )

    def tell(text: str) -> None:
        if options.get("log"):
            report(text, options.get("log"), options.get("log-format"))

    try:
        _begin(_state(), options, tell)
    except (Error, OSError) as error:
        # Not every runtime shows what a hook says.
        tell(one_line(error))
        raise
    return 0


def _check(path: str) -> int:
    """Print what a config.json lacks; return 1 where it lacks something."""
    directory, name = os.path.split(os.path.abspath(path))
    lines = unaided.lacking(load(directory, name), directory, HostFacts())
    for line in lines:
        print(line)
    if not lines:
        print(f"{path}: nothing is missing")
    return 1 if lines else 0


def _state() -> dict[str, Any]:
    """Return the container's state (OCI runtime.md, "State"). Raises Error where it is none."""
    text = sys.stdin.buffer.read(_STATE_SIZE)
    try:
        state = json.loads(text)
    except (ValueError, RecursionError):
        raise Error("what is on the standard input is not the state of a container") from None
    if not (
        isinstance(state, dict)
        and type(state.get("pid")) is int
        and state["pid"] > 0
        and isinstance(state.get("bundle"), str)
    ):
        raise Error("the state on the standard input has no pid and bundle of a container")
    if state.get("status") not in _STATUSES:
        raise Error(
            f"the container is {state.get('status')}: the hook must be one of the kind "
            "createRuntime, or prestart, which run before its program"
        )
    return state


def _terminal_group(spec: dict[str, Any]) -> int:
    """Return the group of terminals: a devpts with that option could not be mounted."""
    found = terminal_group(spec)
    return _TTY if found is None else found


def _begin(state: dict[str, Any], options: Parsed, tell: Callable[[str], None]) -> None:
    process, bundle = state["pid"], state["bundle"]
    spec = load(bundle)
    annotations = spec.get("annotations", {})
    choice = engines.choose(options.get("engine"), annotations.get(ENGINE_ANNOTATION, ""))
    if choice.name in ("none", "nested"):
        # That it is not to be, or is already.
        return
    if choice.name not in engines.WITH_LISTENER:
        raise Error(f"the engine {choice.name} cannot be had by a hook: {choice.reason}")
    subjects.require_traceable()
    subjects.require_fit(process)
    unaided.require(spec)
    spec.setdefault("linux", {}).setdefault("namespaces", [])
    rootfs = spec["root"]["path"] = os.path.realpath(os.path.join(bundle, spec["root"]["path"]))
    identity = _ROOT
    if wanted := annotations.get(USER_ANNOTATION, ""):
        identity = resolve(rootfs, wanted, _ROOT, f"the annotation {USER_ANNOTATION}")
    stores = restore_owners(spec, bundle, rootfs)
    limit = limits.INFINITY

    def furnish(directory: str) -> None:
        nonlocal limit
        if identity != _ROOT:
            limit = notify.number(directory, identity)
        dns = annotations.get(DNS_ANNOTATION, "")
        if name_service.is_wanted(dns, f"the annotation {DNS_ANNOTATION}"):
            count = len(spec.setdefault("mounts", []))
            name_service.add_host_files(spec, HostFacts(), directory)
            late_mounts.add(process, rootfs, spec["mounts"][count:])

    def become() -> None:
        limits.set_soft_limit(process, limits.RLIMIT_RTTIME, limit, limits.INFINITY)

    agent = notify_traced.Agent(
        choice.name,
        "hook",
        options.get("log"),
        options.get("log-format"),
        options.is_on("debug"),
        stores,
        rootfs,
        _terminal_group(spec),
        furnish,
    )
    notify_traced.follow(agent, process, become, tell)
