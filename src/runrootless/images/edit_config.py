"""The configuration of an image that is written: the one of before, with what is asked for.

The members are those of config.md of the OCI image specification; values are written as in a
Dockerfile.
"""

from __future__ import annotations

import json
import os
import time

from runrootless.errors import Error, suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_WORDS = {"entrypoint": "Entrypoint", "cmd": "Cmd"}
_TEXTS = {"workingdir": "WorkingDir", "user": "User", "stopsignal": "StopSignal"}
_SETS = {"port": "ExposedPorts", "volume": "Volumes"}
_KEYS = (*_WORDS, *_TEXTS, *_SETS, "env", "label")
# What Docker says of the container that the image was made of.
_OF_CONTAINER = ("container", "container_config", "docker_version", "id", "parent", "throwaway")
_SECOND = 10**9
# The last one that time(1) and Go write with four digits for the year.
_LAST = 253402300799


def epoch() -> int | None:
    """Return the time that nothing is to be newer than, in nanoseconds: $SOURCE_DATE_EPOCH.

    Raises ``Error`` for what is no time.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > _LAST:
        raise Error(f"SOURCE_DATE_EPOCH is {text!r}, which is no time in seconds")
    return int(text) * _SECOND


def new() -> dict[str, Any]:
    """Return the configuration of an image that is made of nothing."""
    machine = os.uname().machine
    return {"architecture": _MACHINES.get(machine, machine), "os": "linux", "config": {}}


def change(config: dict[str, Any], changes: Sequence[str]) -> None:
    """Make changes, ``KEY=VALUE`` each, in what is to be run. Raises ``Error``.

    Those are ``entrypoint`` and ``cmd`` (a list in JSON, or a line for the shell),
    ``workingdir``, ``user``, ``stopsignal``, ``env=NAME=VALUE``, ``label=NAME=VALUE``,
    ``port`` and ``volume``. Without a value it is taken away.
    """
    run = config.get("config")
    if not isinstance(run, dict):
        run = config["config"] = {}
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or key not in _KEYS:
            wrong = f"there is no key {key!r}" if equals else "it is not KEY=VALUE"
            raise Error(
                f"--config {text!r}: {wrong}: keys are {', '.join(_KEYS)}{suggestion(key, _KEYS)}"
            )
        if key in _WORDS:
            _put(run, _WORDS[key], _words(text, value))
        elif key in _TEXTS:
            if key == "workingdir" and value and not value.startswith("/"):
                raise Error(f"--config {text!r}: the path has to be absolute")
            _put(run, _TEXTS[key], value)
        elif key in _SETS:
            if not value:
                run.pop(_SETS[key], None)
            else:
                _put(run, _SETS[key], {**_object(run, _SETS[key]), value: {}})
        elif key == "env":
            _put(run, "Env", _environment(text, _list(run, "Env", str), value))
        else:
            name, equals, value = _named(text, value)
            labels = {**_object(run, "Labels")}
            labels.pop(name, None)
            _put(run, "Labels", {**labels, name: value} if equals else labels)


def finish(
    config: dict[str, Any],
    layers: Sequence[str],
    kept: int,
    newest: int,
    author: str,
    message: str,
) -> None:
    """Say which layers an image has, by their diff IDs, when it was made, and what of.

    Raises ``Error`` for a history that is none.
    ``kept`` are how many of them it had before, ``newest`` is the time of the newest file in
    nanoseconds. An image is as new as that, or as its lower layers.
    """
    for name in _OF_CONTAINER:
        config.pop(name, None)
    latest = epoch()
    created = stamp(newest)
    before = config.get("created")
    if kept and isinstance(before, str) and before > created:
        created = before
    if latest is not None:
        created = min(created, stamp(latest))
    history = list(_list(config, "history", dict)) if kept else []
    # Readers want one entry for each layer.
    told = sum(not entry.get("empty_layer") for entry in history)
    if told > kept:
        history, told = [], 0
    history += [{"created_by": "unknown"}] * (kept - told)
    entry: dict[str, Any] = {"created": created, "created_by": "runrootless commit"}
    if author:
        entry["author"] = config["author"] = author
    if message:
        entry["comment"] = message
    if len(layers) == kept:
        entry["empty_layer"] = True
    config["created"] = created
    config["history"] = [*history, entry]
    config["rootfs"] = {"type": "layers", "diff_ids": list(layers)}


def stamp(time_ns: int) -> str:
    """Return a time, in nanoseconds, as RFC 3339 has it, in whole seconds."""
    seconds = min(max(time_ns // _SECOND, 0), _LAST)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _object(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise Error(f"{name} in the configuration of the bundle's image is no object")
    return value


def _list(config: dict[str, Any], name: str, kind: type) -> list[Any]:
    value = config.get(name) or []
    if not isinstance(value, list) or not all(isinstance(one, kind) for one in value):
        what = "strings" if kind is str else "objects"
        raise Error(f"{name} in the configuration of the bundle's image is no list of {what}")
    return value


def _put(run: dict[str, Any], name: str, value: Any) -> None:
    if value:
        run[name] = value
    else:
        run.pop(name, None)


def _words(text: str, value: str) -> list[str]:
    if not value.startswith("["):
        return ["/bin/sh", "-c", value] if value else []
    try:
        words = json.loads(value)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Error(f"--config {text!r}: that is no list of strings in JSON")
    return words


def _environment(text: str, before: list[str], value: str) -> list[str]:
    name, equals, value = _named(text, value)
    there = [one for one in before if one.partition("=")[0] == name]
    if not equals:
        return [one for one in before if one not in there]
    new = f"{name}={value}"
    if not there:
        return [*before, new]
    return [new if one == there[-1] else one for one in before if one not in there[:-1]]


def _named(text: str, value: str) -> tuple[str, str, str]:
    name, equals, value = value.partition("=")
    if not name:
        raise Error(f"--config {text!r} names nothing")
    return name, equals, value
