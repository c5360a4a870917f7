"""What a bundle has to have by itself where its runtime is called without us, and a hook is ours.

``transform`` makes what a caller without privileges needs of a regular config.json. Nobody does
that then, so what it would change is what is missing.
"""

from __future__ import annotations

import copy
import json
import os

from runrootless.bundle.identity import Identity
from runrootless.bundle.profile import denied, require_no_listener
from runrootless.bundle.spec import USER_ANNOTATION
from runrootless.bundle.transform import MEMORY, transform
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.bundle.host import HostFacts

    Spec = dict[str, Any]

_STAGES = ("prestart", "createRuntime")
# By which the entries of a list are the same one.
_KEYS = ("destination", "path", "type", "containerID")
_LIMIT = "RLIMIT_RTTIME"


def require(spec: Spec) -> None:
    """Raise Error for what would keep the emulation from working, in a bundle that is to start."""
    for problem in _obstacles(spec):
        raise Error(problem)


def lacking(spec: Spec, bundle: str, host: HostFacts) -> list[str]:
    """Return what is missing in a spec of the directory ``bundle``, a line each.

    Raises Error for one that nobody could run.
    """
    fitting = copy.deepcopy(spec)
    fitting["process"].pop("user", None)
    wanted = copy.deepcopy(fitting)
    transform(fitting, bundle, host, systemd_cgroup=False)
    del fitting[MEMORY]
    # These are given as they are found, or without any need.
    fitting["root"] = wanted["root"]
    for name in ("user", "env"):
        fitting["process"].pop(name, None)
        wanted["process"].pop(name, None)
    lines = [*_obstacles(spec), *_differences(wanted, fitting, "")]
    if not any(_is_ours(hook) for stage in _STAGES for hook in _hooks(spec, stage)):
        lines.append(
            "hooks.createRuntime: `runrootless hook` is not among them, and emulation begins by it"
        )
    return lines


def _obstacles(spec: Spec) -> list[str]:
    found = []
    process = spec["process"]
    identity = Identity.of_user(process.get("user", {}))
    if (identity.uid, identity.gid, identity.additional_gids) != (0, 0, ()):
        found.append(
            "process.user: the container has no ID but 0: let it be 0:0 without additionalGids, "
            f"and name the user by the annotation {USER_ANNOTATION}"
        )
    profile = spec.get("linux", {}).get("seccomp") or {}
    try:
        require_no_listener(profile)
    except Error as error:
        found.append(str(error))
    if denied(profile, ["seccomp"]):
        found.append("linux.seccomp: the profile must allow seccomp(2), by which emulation begins")
    if any(limit.get("type") == _LIMIT for limit in process.get("rlimits", ())):
        found.append(f"process.rlimits: {_LIMIT} must not be limited: it carries who a process is")
    return found


def _hooks(spec: Spec, stage: str) -> list[dict[str, Any]]:
    hooks: list[dict[str, Any]] = (spec.get("hooks") or {}).get(stage) or []
    return hooks


def _is_ours(hook: dict[str, Any]) -> bool:
    words = [os.path.basename(word) for word in (hook.get("path", ""), *hook.get("args", ()))]
    return any(word.startswith("runrootless") for word in words) and "hook" in words


def _differences(before: Any, after: Any, where: str) -> list[str]:
    """Return what is to be changed for ``before`` to be ``after``."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        lines = []
        for name in [*before, *(name for name in after if name not in before)]:
            place = f"{where}.{name}" if where else name
            if name not in after:
                lines.append(f"{place}: leave it out: {_json(before[name])}")
            elif name not in before:
                lines.append(f"{place}: add {_json(after[name])}")
            else:
                lines += _differences(before[name], after[name], place)
        return lines
    if isinstance(before, list) and isinstance(after, list):
        olds, news = _by_key(before), _by_key(after)
        if olds is None or news is None:
            return [f"{where}: {_json(before)} must be {_json(after)}"]
        lines = [f"{where}: leave out {_json(old)}" for key, old in olds.items() if key not in news]
        for key, new in news.items():
            if key not in olds:
                lines.append(f"{where}: add {_json(new)}")
            else:
                lines += _differences(olds[key], new, f"{where}[{key}]")
        return lines
    return [f"{where}: {_json(before)} must be {_json(after)}"]


def _by_key(entries: list[Any]) -> dict[str, Any] | None:
    """Return the entries of a list by what names each, None where they have no names."""
    found: dict[str, Any] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            return None
        key = next((str(entry[name]) for name in _KEYS if name in entry), "")
        if not key or key in found:
            return None
        found[key] = entry
    return found


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
