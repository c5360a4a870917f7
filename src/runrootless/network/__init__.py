"""The network of a container: the host's, none, or one by a helper program.

The host's is the default and takes none of this.  Otherwise the container gets a
network namespace of its own, in which the runtime brings up the loopback device. The
helpers pasta(1) and slirp4netns(1) connect it, as the same user, by a tap device in
the namespace and plain sockets outside.  They are started by a ``createRuntime``
hook (OCI config.md, "POSIX-platform Hooks"), that is by the runtime, as soon as there
is a namespace and before anything runs in it; see ``network.hook``.
"""

from __future__ import annotations

import os
import sys

from runrootless.bundle.name_service import HOSTS, RESOLV_CONF, add_files, add_host_files
from runrootless.errors import Error, suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.bundle.host import HostFacts

    Spec = dict[str, Any]

NAMES = ("host", "none", "pasta", "slirp4netns")

_TUN = "/dev/net/tun"
# Each helper's Debian package, and the address at which it answers for the host's name
# server.  That of slirp4netns is fixed, the other is the one that podman takes.
_PACKAGES = {"pasta": "passt", "slirp4netns": "slirp4netns"}
_NAME_SERVERS = {"pasta": "169.254.1.1", "slirp4netns": "10.0.2.3"}
_PASTA_PORTS = ("-t", "-u", "-T", "-U")


class Network:
    """The connection of a container: one of ``NAMES``, and the helper's own ``options``."""

    __slots__ = ("name", "options", "program")

    def __init__(self, wanted: str, source: str = "--network") -> None:
        """Take ``wanted`` apart: a name, and behind a colon options separated by commas.

        ``source`` is where the user has said so. Raises Error for an unknown name, and where the
        helper or what it needs is missing.
        """
        self.name, colon, options = wanted.partition(":")
        self.options = options.split(",") if options else []
        self.program = ""
        if self.name not in NAMES:
            raise Error(
                f"there is no network {self.name}: {source} takes {', '.join(NAMES)}"
                f"{suggestion(self.name, NAMES)}"
            )
        if self.name in _PACKAGES:
            self.program = _find(self.name, f"{source} {self.name}")
        elif colon:
            raise Error(f"{source} {self.name} takes no options")

    def set_namespace(self, spec: Spec) -> None:
        """Give the spec a new network namespace, or none, in place of any other."""
        linux = spec.setdefault("linux", {})
        namespaces = [n for n in linux.get("namespaces", ()) if n.get("type") != "network"]
        if self.name != "host":
            namespaces.append({"type": "network"})
        linux["namespaces"] = namespaces

    def connect(self, spec: Spec, directory: str, host: HostFacts, dns: bool = True) -> None:
        """Add what makes the new namespace usable to a spec that is rootless already.

        ``directory`` is the container's private one, and ``dns`` tells whether names are to be
        resolved by what is mounted. Raises OSError.
        """
        if self.name == "host":
            if dns:
                add_host_files(spec, host, directory)
            return
        contents: dict[str, bytes | None] = {HOSTS: None}
        if self.program:
            contents[RESOLV_CONF] = resolv_conf(_NAME_SERVERS[self.name]).encode()
            self._add_hook(spec, directory)
        if dns:
            add_files(spec, host, directory, contents)

    def _add_hook(self, spec: Spec, directory: str) -> None:
        hooks = spec.get("hooks") or {}
        theirs = (hooks.get("createRuntime") or []) if isinstance(hooks, dict) else None
        if not isinstance(theirs, list):
            raise Error("config.json: hooks must be an object, hooks.createRuntime an array")
        ours = {"path": sys.executable, "args": self._hook_command(directory)}
        spec["hooks"] = {**hooks, "createRuntime": [ours, *theirs]}

    def _hook_command(self, directory: str) -> list[str]:
        # Without the site module, which takes as long as all the rest; and whichever
        # way this package was installed.
        packages = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        script = (
            f"import sys; sys.path.append({packages!r}); "
            "from runrootless.network.hook import main; sys.exit(main(sys.argv[1:]))"
        )
        command = [sys.executable, "-I", "-S", "-c", script, self.name, directory, self.program]
        return [*command, *self._helper_options()]

    def _helper_options(self) -> list[str]:
        if self.name == "slirp4netns":
            return [
                *("--configure", "--mtu=65520", "--enable-sandbox", "--enable-seccomp"),
                *self.options,
            ]
        options = ["--config-net", "--quiet", "--dns-forward", _NAME_SERVERS["pasta"]]
        for port in _PASTA_PORTS:
            # Left to itself pasta opens a port on the host for each that is opened inside.
            if port not in self.options:
                options += [port, "none"]
        return options + self.options


def resolv_conf(name_server: str) -> str:
    """Return a resolv.conf(5) as the host's, but with this name server alone."""
    lines = [f"nameserver {name_server}"]
    try:
        with open(RESOLV_CONF, encoding="utf-8", errors="replace") as file:
            lines += [line.strip() for line in file if line.startswith(("search", "options"))]
    except OSError:
        pass
    return "\n".join(lines) + "\n"


def _find(name: str, said: str) -> str:
    for directory in os.environ.get("PATH", os.defpath).split(":"):
        path = os.path.join(directory, name)
        if directory.startswith("/") and os.path.isfile(path) and os.access(path, os.X_OK):
            break
    else:
        raise Error(
            f"{said} needs the program {name}, which is not in PATH: "
            f"install the package {_PACKAGES[name]}"
        )
    if not os.path.exists(_TUN):
        raise Error(f"{said} needs {_TUN}: an administrator must run `modprobe tun`")
    if not os.access(_TUN, os.R_OK | os.W_OK):
        raise Error(
            f"{said} needs {_TUN}, which is closed to you: "
            f"an administrator must run `chmod 0666 {_TUN}`"
        )
    return path
