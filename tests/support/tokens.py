"""A server that gives tokens for registries, on loopback: the distribution project's
"Token Authentication Specification" and "OAuth2 Token Authentication".

Tokens are JSON Web Tokens, which openssl signs: RFC 7515, RFC 7519.
"""

import base64
import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SERVICE, ISSUER = "the tests' registry", "the tests"
USER, PASSWORD = "somebody", "a secret: of theirs"
IDENTITY_TOKEN = "an identity token/+="
PUBLIC = "public/"
"""What anybody may pull begins so."""


class TokenServer:
    """The server at ``realm``; ``certificate`` is what its tokens are signed with.

    ``given`` are the requests that were answered: the method, and what the token is for.
    ``lives`` is for how many seconds tokens are good, ``forged`` whether another key signs them.
    """

    def __init__(self, directory: str, certificate: str = "", key: str = "") -> None:
        self.certificate = f"{directory}/token.crt"
        self._key = f"{directory}/token.pem"
        self._forger = f"{directory}/forger.pem"
        make_certificate(self._key, self.certificate, "rsa:2048")
        make_certificate(self._forger, f"{directory}/forger.crt", "rsa:2048")
        with open(self.certificate) as file:
            self._chain = "".join(file.read().strip().splitlines()[1:-1])
        self.given: list[tuple[str, str]] = []
        self.lives: list[int] = []
        self.forged = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self, "GET", parse_qs(urlsplit(self.path).query))

            def do_POST(self) -> None:
                server.answer(self, "POST", parse_qs(_body(self).decode()))

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.realm = f"{scheme}://127.0.0.1:{self._server.server_port}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(
        self, request: BaseHTTPRequestHandler, method: str, asked: Mapping[str, list[str]]
    ) -> None:
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        authorization = request.headers.get("Authorization")
        if method == "POST":
            wanted = {"grant_type": ["refresh_token"], "refresh_token": [IDENTITY_TOKEN]}
            is_known = all(asked.get(name) == value for name, value in wanted.items())
        else:
            is_known = authorization == f"Basic {basic}"
        if asked.get("service") != [SERVICE] or not (is_known or authorization is None):
            self._send(request, 401, {"details": "who is that?"})
            return
        if method == "POST" and not is_known:
            self._send(request, 400, {"error": "invalid_grant"})
            return
        scopes = [scope for one in asked.get("scope", []) for scope in one.split(" ")]
        access = []
        shown = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            # In any order: the registry has them in a map.
            allowed = sorted(actions.split(","))
            shown.append(f"{kind}:{name}:{','.join(allowed)}")
            if not is_known:
                allowed = ["pull"] if name.startswith(PUBLIC) and "pull" in allowed else []
            access.append({"type": kind, "name": name, "actions": allowed})
        self.given.append((method, " ".join(shown)))
        # Both names that a token may have in an answer: each client is to know the one it wants.
        name = "access_token" if method == "POST" else "token"
        self._send(request, 200, {name: self._token(access), "expires_in": 300})

    def _send(self, request: BaseHTTPRequestHandler, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def _token(self, access: Any) -> str:
        now = int(time.time())
        lives = self.lives.pop(0) if self.lives else 300
        claims = {
            "iss": ISSUER,
            "sub": USER,
            "aud": SERVICE,
            "iat": now - 1000,
            "nbf": now - 1000,
            "exp": now + lives,
            "jti": os.urandom(8).hex(),
            "access": access,
        }
        header = {"typ": "JWT", "alg": "RS256", "x5c": [self._chain]}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        key = self._forger if self.forged else self._key
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", key],
            input=text.encode(),
            capture_output=True,
            check=True,
        )
        return f"{text}.{_encoded(signed.stdout)}"


@contextmanager
def token_server(directory: str, certificate: str = "", key: str = "") -> Iterator[TokenServer]:
    """Have a server as long as the context lasts, with TLS where there is a certificate."""
    running = TokenServer(directory, certificate, key)
    try:
        yield running
    finally:
        running.close()


def make_certificate(key: str, certificate: str, kind: str = "ec") -> None:
    """Make a key, and a certificate for 127.0.0.1 that it has signed itself."""
    command = ["openssl", "req", "-x509", "-newkey", kind]
    if kind == "ec":
        command += ["-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    for name in (key, certificate):
        os.chmod(name, 0o644)


def _body(request: BaseHTTPRequestHandler) -> bytes:
    """Return what was sent with a request: of a known size, or in chunks (RFC 9112)."""
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers["Content-Length"]))
    data = b""
    while size := int(request.rfile.readline(), 16):
        data += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return data


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
