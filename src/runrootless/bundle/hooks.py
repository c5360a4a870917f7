"""The hooks of a bundle, which are to see that bundle and not the derived one.

A runtime tells hooks the directory of its own bundle, in their state on the standard input (OCI
runtime.md, "State"), and lets them begin there. So ``runrootless.bundle.hook`` is put before them.
"""

from __future__ import annotations

import os
import sys

from runrootless.bundle import json_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Spec = dict[str, Any]

# As much as native/launcher.c has room for.
_LONGEST = 8192

OUTSIDE = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
"""The kinds whose programs are the host's. Those of startContainer are in the container."""


def put_bundle(spec: Spec, directory: str, bundle: str) -> None:
    """Let the hooks of a spec, which is in the private ``directory``, see the user's ``bundle``."""
    for kind in OUTSIDE:
        for hook in (spec.get("hooks") or {}).get(kind) or ():
            path = hook.get("path")
            if path:
                # Without a path the runtime is to say so.
                arguments = hook.get("args") or [path]
                hook["args"] = [*_command(), directory, os.path.realpath(bundle), path, *arguments]
                hook["path"] = sys.executable


def replacement(directory: str, bundle: str) -> tuple[bytes, bytes]:
    """Return what is in the state of a hook in the container, and what is to be in its place.

    ``directory`` and ``bundle`` are as for ``put_bundle``. Both texts are empty where they are
    too long for a launcher.
    """
    old, new = (
        b'"bundle":' + json_file.dump(os.path.realpath(path)).encode()
        for path in (directory, bundle)
    )
    for character in b"&<>":
        # As Go's encoding/json has it.
        old = old.replace(b"%c" % character, b"\\u%04x" % character)
    return (old, new) if max(len(old), len(new)) <= _LONGEST else (b"", b"")


def _command() -> list[str]:
    # Without the site module, which takes as long as all the rest; and whichever way this
    # package was installed.
    packages = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    script = f"import sys; sys.path.append({packages!r}); import runrootless.bundle.hook as hook"
    return [sys.executable, "-I", "-S", "-c", f"{script}; hook.become(sys.argv[1:])"]
