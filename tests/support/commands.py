"""The command line in front of a runtime that only says how it was called."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from support.processes import Result
from support.users import Unprivileged

FAKE_RUNTIME = """\
#!/usr/bin/python3 -IS
import json, os, sys

words = dict(word.split("=", 1) for word in sys.argv if word.startswith("--") and "=" in word)
told = {"words": sys.argv}
if "--bundle" in words:
    with open(words["--bundle"] + "/config.json") as file:
        told["config"] = json.load(file)
    told["bundle"] = sorted(os.listdir(words["--bundle"]))
    # As if the container had been created.
    state = words["--root"] + "/" + sys.argv[-1]
    os.makedirs(state)
    with open(state + "/state.json", "w") as file:
        json.dump({"init_process_pid": 1 << 30}, file)
if "--process" in words:
    with open(words["--process"]) as file:
        told["process"] = json.load(file)
told["descriptors"] = [
    name for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)
]
print(json.dumps(told))
sys.exit(7 if "exit7" in sys.argv else 0)
"""


class Command:
    """``runrootless`` with that runtime, as the unprivileged user."""

    def __init__(self, user: Unprivileged) -> None:
        self.user = user
        self.runtime = self.install("runc")
        self.root = os.path.join(user.runtime_dir, "runc")
        self.bundle = os.path.join(user.home, "bundle")
        self.write_bundle()

    def install(self, name: str) -> str:
        path = os.path.join(self.user.home, name)
        Path(path).write_text(FAKE_RUNTIME)
        os.chmod(path, 0o755)
        return path

    def write_bundle(self, **process: Any) -> None:
        for name in ("etc", "bin"):
            os.makedirs(f"{self.bundle}/rootfs/{name}", exist_ok=True)
        Path(f"{self.bundle}/rootfs/bin/sh").touch(0o755)
        Path(f"{self.bundle}/rootfs/etc/passwd").write_text(
            "root:x:0:0::/root:/bin/sh\nguest:x:405:100::/home/guest:/bin/sh\n"
        )
        spec = {
            "process": {"args": ["/bin/sh"], "cwd": "/", "env": ["A=b"], **process},
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": "pid"}]},
        }
        Path(f"{self.bundle}/config.json").write_text(json.dumps(spec))

    def __call__(self, *words: str, **more: Any) -> Result:
        """Run the command with this environment, and the runtime in it."""
        env = {"RUNROOTLESS_RUNTIME": self.runtime, **more.pop("env", {})}
        return self.user.run([sys.executable, "-m", "runrootless", *words], env=env, **more)

    def told(self, *words: str, code: int = 0, **more: Any) -> dict[str, Any]:
        """Run the command, and return what the runtime was told."""
        done = self(*words, **more).check(code)
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def words(self, *words: str, **more: Any) -> list[str]:
        """Run the command, and return the runtime's command line, less the runtime."""
        path, *rest = self.told(*words, **more)["words"]
        assert path == self.runtime
        assert isinstance(rest, list)
        return rest
