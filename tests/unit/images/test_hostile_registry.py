"""The client in Python beside a registry that is after passwords, or after memory."""

import base64
import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runrootless.errors import Error
from runrootless.images.cache import Cache
from runrootless.images.image import Descriptor
from runrootless.images.new_image import LAYER, Blob, NewImage
from runrootless.images.progress import Progress
from runrootless.images.reference import Name
from runrootless.images.transports.oras import Oras

SECRET = "a secret"
BASIC = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
MIB = 1 << 20
HUGE = 64 * MIB
BUFFERED = 32 * MIB
"""More than the sockets' buffers take of what nobody reads."""

STALLED = 1
"""The status of an answer of which the body does not come."""

FETCH = """
import sys
from runrootless.images.cache import Cache
from runrootless.images.image import Descriptor
from runrootless.images.progress import Progress
from runrootless.images.reference import Name
from runrootless.images.transports.oras import Oras
client = Oras(Name(sys.argv[1], "x", "tag"), Cache(), False, "")
client.fetch("", [Descriptor(sys.argv[2], 1 << 20)], Progress(True))
"""

DATA = b"a layer"
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


class Server:
    """``answers`` are by the method and the beginning of a path: a status, headers, a body.

    ``asked`` are requests, with all that was sent; ``sent`` counts the bytes of huge bodies.
    """

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes | int]] = {}
        self.asked: list[str] = []
        self.sent = 0
        self.stalls, self.goes_on = threading.Event(), threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = f"{self.command} {self.path}"
                server.asked.append(f"{request}\n{self.headers}\n{body.decode()}")
                found = [one for one in server.answers if request.startswith(one)]
                status, headers, data = server.answers[max(found, key=len)]
                size = data if isinstance(data, int) else len(data)
                self.send_response(200 if status == STALLED else status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(size))
                self.end_headers()
                if status == STALLED:
                    server.stalls.set()
                    server.goes_on.wait(60)
                    self.close_connection = True
                    return
                if isinstance(data, bytes):
                    if self.command != "HEAD":
                        self.wfile.write(data)
                    return
                try:
                    for _ in range(0, size, MIB):
                        self.wfile.write(b" " * MIB)
                        server.sent += MIB
                except OSError:
                    self.close_connection = True

            do_GET = do_HEAD = do_POST = do_PUT = do

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}"
        self.answers |= {"": (404, {}, b""), "GET /v2/": (200, {}, b"")}

    def close(self) -> None:
        self.goes_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def registry() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def thief() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def client(registry: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Oras:
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    known = {"auth": BASIC.removeprefix("Basic ")}
    _login(tmp_path, registry, known)
    return Oras(Name(registry.address, "x", "tag"), Cache(), False, "")


def _login(home: Path, registry: Server, known: dict[str, str]) -> None:
    (home / "containers").mkdir(exist_ok=True)
    path = home / "containers" / "auth.json"
    path.write_text(json.dumps({"auths": {registry.address: known}}))


def challenge(server: Server, kind: str) -> dict[str, str]:
    about = f'Bearer realm="{server.url}/token",service="x"' if kind == "bearer" else ""
    return {"Www-Authenticate": about or 'Basic realm="x"'}


def push(client: Oras, directory: Path) -> None:
    (directory / "layer").write_bytes(DATA)
    layer = Blob(DIGEST, DIGEST, len(DATA), LAYER, path=str(directory / "layer"))
    client.push(NewImage({"architecture": "amd64", "os": "linux"}, [layer]))


def pull(client: Oras, directory: Path) -> None:
    client.manifest("tag")


def fetch(client: Oras, directory: Path) -> None:
    client.fetch("", [Descriptor(DIGEST, len(DATA))], Progress(True))


@pytest.mark.parametrize("logged_in", [False, True])
@pytest.mark.parametrize("kind", ["basic", "bearer"])
@pytest.mark.parametrize("way", [pull, fetch, push, "upload"])
def test_credentials_are_for_the_registry_alone(
    client: Oras,
    registry: Server,
    thief: Server,
    tmp_path: Path,
    way: Any,
    kind: str,
    logged_in: bool,
) -> None:
    """Another server is not told who asks, wherever the registry sends, whatever that wants."""
    thief.answers |= {
        "": (401, challenge(thief, kind), b""),
        "GET /token": (200, {}, b'{"token": "t"}'),
    }
    elsewhere = (307, {"Location": f"{thief.url}/there"}, b"")
    registry.answers |= {f"{method} /v2/x/": elsewhere for method in ("GET", "HEAD", "POST", "PUT")}
    if way == "upload":
        registry.answers |= {
            "HEAD": (404, {}, b""),
            "POST": (202, {"Location": f"{thief.url}/there"}, b""),
        }
        way = push
    if logged_in:
        registry.answers["GET /v2/x/manifests/before"] = (401, challenge(registry, "basic"), b"")
        with pytest.raises(Error):
            client._get("manifests/before", "it")
        assert BASIC in registry.asked[-1]
    with pytest.raises(Error, match=f"sends on to {thief.address}"):
        way(client, tmp_path)
    assert thief.asked
    for request in thief.asked:
        assert "authorization" not in request.lower() and "/token" not in request


def test_what_netrc_says_is_for_nobody(
    client: Oras, registry: Server, thief: Server, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password other\n")
    thief.answers["GET"] = (200, {}, b"{}")
    registry.answers["GET /v2/x/"] = (307, {"Location": f"{thief.url}/there"}, b"")
    assert client.manifest("tag") == b"{}"
    assert "authorization" not in "".join(registry.asked + thief.asked).lower()


def test_an_identity_token_is_not_sent_on(
    client: Oras, registry: Server, thief: Server, tmp_path: Path
) -> None:
    _login(tmp_path, registry, {"auth": "", "identitytoken": SECRET})
    registry.answers |= {
        "GET /v2/x/": (401, challenge(registry, "bearer"), b""),
        "POST /token": (307, {"Location": f"{thief.url}/token"}, b""),
    }
    with pytest.raises(Error, match="gives none to you"):
        client.manifest("tag")
    assert SECRET.replace(" ", "+") in registry.asked[-1]
    assert not thief.asked


@pytest.mark.parametrize("place", ["ping", "redirect", "refused", "missing", "token", "manifest"])
def test_bodies_are_read_no_further_than_they_matter(
    client: Oras, registry: Server, place: str
) -> None:
    huge: dict[str, dict[str, tuple[int, dict[str, str], bytes | int]]] = {
        "ping": {"GET /v2/": (200, {}, HUGE)},
        "redirect": {"GET /v2/x/": (307, {"Location": "/there"}, HUGE)},
        "refused": {"GET /v2/x/": (401, challenge(registry, "basic"), HUGE)},
        "missing": {"GET /v2/x/": (404, {}, HUGE)},
        "token": {
            "GET /v2/x/": (401, challenge(registry, "bearer"), b""),
            "GET /token": (200, {}, HUGE),
        },
        "manifest": {"GET /v2/x/": (200, {}, HUGE)},
    }
    registry.answers |= huge[place]
    with pytest.raises(Error):
        client.manifest("tag")
    assert registry.sent < BUFFERED


@pytest.mark.parametrize("where", ["http://[", "http://\xe9\xff/", "file:///etc/passwd", "//"])
def test_a_redirect_to_no_address(client: Oras, registry: Server, where: str) -> None:
    registry.answers["GET /v2/x/"] = (307, {"Location": where}, b"")
    with pytest.raises(Error):
        client.manifest("tag")


def test_an_interrupt_does_not_wait_for_a_registry(client: Oras, registry: Server) -> None:
    registry.answers["GET /v2/x/"] = (STALLED, {}, HUGE)
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, registry.address, DIGEST], stderr=subprocess.PIPE, text=True
    )
    try:
        assert registry.stalls.wait(60)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert "KeyboardInterrupt" in said
    finally:
        process.kill()
