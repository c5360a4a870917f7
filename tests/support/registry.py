"""Registries on loopback, Debian's docker-registry, and images put into them by skopeo."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from support.layers import Layout
from support.processes import eventually
from support.tokens import (
    ISSUER,
    PASSWORD,
    SERVICE,
    USER,
    TokenServer,
    make_certificate,
    token_server,
)

__all__ = ["PASSWORD", "USER", "Registry", "registry"]

_NOBODY = 65534


class Registry:
    """A registry at ``address``; ``authority`` is its certificate's, empty for plain HTTP.

    ``tokens`` is the server that gives tokens for it, if there is one.
    """

    def __init__(
        self, directory: str, *, tls: bool, auth: bool, tokens: TokenServer | None
    ) -> None:
        self.tokens = tokens
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.authority = f"{directory}/ca.crt" if tls else ""
        self._has_users = auth or tokens is not None
        http = f"addr: '{self.address}'"
        if tls:
            http += f", tls: {{certificate: {directory}/ca.crt, key: {directory}/key.pem}}"
        text = (
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n"
            f"http: {{{http}}}\n"
        )
        if auth:
            command = ["htpasswd", "-Bbc", f"{directory}/htpasswd", USER, PASSWORD]
            subprocess.run(command, check=True, capture_output=True)
            os.chmod(f"{directory}/htpasswd", 0o644)
            text += f"auth: {{htpasswd: {{realm: here, path: {directory}/htpasswd}}}}\n"
        if tokens is not None:
            text += (
                f"auth: {{token: {{realm: '{tokens.realm}', service: \"{SERVICE}\", "
                f"issuer: {ISSUER}, rootcertbundle: {tokens.certificate}}}}}\n"
            )
        with open(f"{directory}/config.yml", "w") as file:
            file.write(text)
        self._log = open(f"{directory}/log", "w")  # noqa: SIM115
        log = self._log.fileno()
        # Nobody's process: what the tests' user has running is counted.
        os.mkdir(f"{directory}/data")
        os.chown(f"{directory}/data", _NOBODY, _NOBODY)
        self._process = subprocess.Popen(
            ["docker-registry", "serve", file.name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=_NOBODY,
            group=_NOBODY,
            extra_groups=[],
        )
        eventually(self._answers, "the registry listens", 30)

    def push(self, layout: Layout, name: str, to: str) -> str:
        """Put an image of a layout into the registry, all its platforms; return its name."""
        image = f"{self.address}/{to}"
        words = ["skopeo", "copy", "--quiet", "--all", "--preserve-digests"]
        words += ["--dest-tls-verify=false"]
        if self._has_users:
            words += ["--dest-creds", f"{USER}:{PASSWORD}"]
        done = subprocess.run(
            [*words, f"oci:{layout.path}:{name}", f"docker://{image}"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return image

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._log.close()

    def _answers(self) -> bool:
        host, _, port = self.address.partition(":")
        with socket.socket() as client:
            return client.connect_ex((host, int(port))) == 0


@contextmanager
def registry(
    directory: str,
    *,
    tls: bool = False,
    auth: bool = False,
    tokens: bool = False,
    tokens_in_clear: bool = False,
) -> Iterator[Registry]:
    """Have a registry as long as the context lasts; ``directory`` is empty.

    ``auth`` is basic authentication. ``tokens_in_clear`` are those of a server without TLS.
    """
    certificate = key = ""
    if tls:
        certificate, key = f"{directory}/ca.crt", f"{directory}/key.pem"
        make_certificate(key, certificate)
    with ExitStack() as stack:
        server = None
        if tokens_in_clear:
            server = stack.enter_context(token_server(directory))
        elif tokens:
            server = stack.enter_context(token_server(directory, certificate, key))
        running = Registry(directory, tls=tls, auth=auth, tokens=server)
        stack.callback(running.close)
        yield running
