"""Reading the ``config.json`` of a bundle.

Every field that the transformation touches is checked for its type here, once,
so that a mistake in the file is one line on the terminal and no later function
has to check.  Other fields are passed on unchanged: the runtime checks them.
"""

from __future__ import annotations

import os

from runrootless.bundle import json_file
from runrootless.errors import Error, named, one_line, suggested_path, suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Spec = dict[str, Any]

ENGINE_ANNOTATION = "org.runrootless.engine"
"""The annotation (OCI config.md, "Annotations") with which a bundle chooses its engine."""

NETWORK_ANNOTATION = "org.runrootless.network"
"""The annotation that stands for ``--network`` in a bundle."""

DNS_ANNOTATION = "org.runrootless.dns"
"""The annotation that stands for ``--dns`` in a bundle."""

FAST_PATH_ANNOTATION = "org.runrootless.fast-path"
"""The annotation that stands for ``--fast-path`` in a bundle."""

USER_ANNOTATION = "org.runrootless.user"
"""The annotation with which a bundle names who its process is to be, where a hook begins the
emulation: USER[:GROUP]. Otherwise ``process.user`` does."""

_ANNOTATIONS = (
    ENGINE_ANNOTATION,
    NETWORK_ANNOTATION,
    DNS_ANNOTATION,
    FAST_PATH_ANNOTATION,
    USER_ANNOTATION,
)
_OUR_BEGINNING = "org.runrootless."

_CAPABILITY_SETS = {
    name: [str] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
}
_HOOKS = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)
_PROCESS: Any = {
    "user": {"uid": int, "gid": int, "additionalGids": [int]},
    "args": [str],
    "env": [str],
    "cwd": str,
    "terminal": bool,
    "capabilities": _CAPABILITY_SETS,
    "rlimits": [{"type": str, "soft": int, "hard": int}],
    "noNewPrivileges": bool,
    "oomScoreAdj": int,
}
# The fields of the OCI runtime specification that the transformation reads:
# a dictionary is an object, a list an array of what is in it.
_SPEC: Any = {
    "process": _PROCESS,
    "root": {"path": str, "readonly": bool},
    "annotations": dict.fromkeys(_ANNOTATIONS, str),
    "hooks": {kind: [{"path": str, "args": [str]}] for kind in _HOOKS},
    "mounts": [{"destination": str, "type": str, "source": str, "options": [str]}],
    "linux": {
        "namespaces": [{"type": str, "path": str}],
        "devices": [
            {
                "path": str,
                "type": str,
                "major": int,
                "minor": int,
                "fileMode": int,
                "uid": int,
                "gid": int,
            }
        ],
        "sysctl": {},
        "resources": {},
        "cgroupsPath": str,
        "seccomp": {
            "defaultAction": str,
            "architectures": [str],
            "listenerPath": str,
            "syscalls": [
                {
                    "names": [str],
                    "action": str,
                    "args": [{"index": int, "value": int, "valueTwo": int, "op": str}],
                }
            ],
        },
    },
}
_TYPE_NAMES = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    float: "a number with a fraction",
    type(None): "null",
}


def load(bundle: str, name: str = "config.json") -> Spec:
    """Return the checked spec in the file ``name`` of the directory ``bundle``.

    Raises ``Error`` if there is no such bundle, no such file, no JSON in it, or a
    field that is not of the type the OCI runtime specification (config.md) says.
    """
    path = os.path.join(bundle, name)
    try:
        spec = json_file.read(path)
    except FileNotFoundError:
        if os.path.isdir(bundle):
            raise Error(
                f"there is no {path}: `runrootless spec` in that directory makes one"
            ) from None
        raise Error(
            f"there is no bundle directory {bundle}: give one with --bundle{suggested_path(bundle)}"
        ) from None
    except NotADirectoryError:
        raise Error(
            f"{bundle} is no directory: --bundle takes the one that config.json is in"
        ) from None
    except OSError as error:
        raise Error(f"cannot read {one_line(named(error, path))}") from None
    check(spec, path)
    return spec  # type: ignore[no-any-return]


def load_process(path: str) -> dict[str, Any]:
    """Return the checked process object in the file ``path`` (``exec --process``).

    Raises ``Error`` as ``load`` does.
    """
    try:
        process = json_file.read(path)
    except OSError as error:
        raise Error(f"cannot read {path}: {error.strerror}") from None
    _check(process, _PROCESS, path, "")
    return process  # type: ignore[no-any-return]


def check(spec: Any, path: str) -> None:
    """Check what is in the file ``path``. Raises ``Error`` as ``load`` does."""
    _check(spec, _SPEC, path, "")
    for name in ("process", "root"):
        if name not in spec:
            raise Error(f"{path}: {name} is missing: `runrootless spec` writes a complete file")
    if not spec["root"].get("path"):
        raise Error(f"{path}: root.path is missing: it names the root file system")
    if not spec["process"].get("args"):
        raise Error(f"{path}: process.args is missing: it is the command to run")


def unknown_annotations(spec: Spec) -> list[str]:
    """Return a line about each annotation of a checked spec that is ours by its name alone."""
    return [
        f"there is no annotation {name}{suggestion(name, _ANNOTATIONS)}"
        for name in spec.get("annotations", {})
        if name.startswith(_OUR_BEGINNING) and name not in _ANNOTATIONS
    ]


def _check(value: Any, shape: Any, path: str, where: str) -> None:
    """Raise ``Error`` unless ``value`` is of the given shape; drop what is null.

    Null is dropped because the runtimes take it for an absent field.
    """
    kind: Any = shape if isinstance(shape, type) else type(shape)
    if type(value) is not kind:
        raise Error(
            f"{path}: {where or 'the file'} must be {_TYPE_NAMES[kind]}, "
            f"not {_TYPE_NAMES[type(value)]}"
        )
    if kind is str:
        if "\0" in value:
            raise Error(f"{path}: {where} must not have a null character in it")
    elif kind is dict:
        for name, inner in shape.items():
            if name in value:
                if value[name] is None:
                    del value[name]
                else:
                    _check(value[name], inner, path, f"{where}.{name}" if where else name)
    elif kind is list:
        inner = shape[0]
        for index, item in enumerate(value):
            # The name of each place is only wanted in an error.
            if type(item) is not inner or (inner is str and "\0" in item):
                _check(item, inner, path, f"{where}[{index}]")
