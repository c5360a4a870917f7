"""Containers that a runtime starts by itself, with ``runrootless hook`` among their hooks."""

import os
import shutil
from collections.abc import Sequence

from support.bundles import ADMINISTRATOR, Bundle, Config, make_bundle, make_rootless
from support.containers import COMMAND, Runrootless
from support.oracle import BATCH_COMMAND, FEW_CAPABILITIES, Container
from support.processes import Result
from support.trees import Trees
from support.users import Unprivileged

# What `runrootless` gives to every container, as Docker does.
CAPABILITIES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW"),
    *("CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE"),
    *("CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"),
)
IN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def hooked(
    user: Unprivileged, bundle: Bundle, stage: str = "createRuntime", options: Sequence[str] = ()
) -> Bundle:
    """Make a regular bundle one that a runtime can run, and the hook emulates."""

    def change(config: Config) -> None:
        make_rootless(config, user.account.uid, user.account.gid)
        config["hooks"] = {
            stage: [{"path": COMMAND, "args": ["runrootless", *options, "hook"]}],
        }

    return bundle.set_capabilities(CAPABILITIES).change(change)


class Runtime:
    """A runtime, called by the user. ``before`` are words that stand before its name."""

    def __init__(self, user: Unprivileged, name: str, before: Sequence[str] = ()) -> None:
        path = shutil.which(name)
        assert path is not None
        self.user = user
        self._command = [*before, path, f"--root={user.runtime_dir}/{name}-alone"]

    def __call__(self, *words: str, timeout: float = 120) -> Result:
        """Run it with these words."""
        return self.user.run([*self._command, *words], timeout=timeout)

    def run(self, bundle: Bundle, *, timeout: float = 120) -> Result:
        """Run a container to its end."""
        name = Runrootless.new_id()
        return self("run", "--bundle", bundle.path, name, timeout=timeout)


class HookedContainer(Container):
    """A user without privileges, in a container of a runtime by itself."""

    def __init__(self, trees: Trees, archive: str, user: Unprivileged) -> None:
        super().__init__(trees, archive, Runrootless(user))
        self._user = user

    def run_batch(self, directory: str, root: str, group: str, timeout: float) -> Result:
        """Run them in a container."""
        bundle = hooked(self._user, make_bundle(self._user, directory, root).set(BATCH_COMMAND))
        if group in self.administrators:
            bundle.add_capabilities(ADMINISTRATOR)
        if few := FEW_CAPABILITIES.get(group):
            bundle.set_capabilities(few)
        done = Runtime(self._user, "runc").run(bundle, timeout=timeout)
        os.unlink(bundle.config_path)
        return done
