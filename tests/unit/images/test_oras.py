"""The client in Python beside a registry whose tokens are good for one request each."""

import hashlib
import json
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


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry:
    """``there`` is what was put there by the ends of its addresses, ``given`` counts tokens."""

    def __init__(self) -> None:
        self.there: dict[str, bytes] = {}
        self.given = 0
        self.gives = True
        good: set[str] = set()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path, _, query = self.path.partition("?")
                if path == "/token":
                    if not registry.gives:
                        return self.answer(401)
                    registry.given += 1
                    good.add(f"Bearer {registry.given}")
                    return self.answer(200, json.dumps({"token": str(registry.given)}).encode())
                if (token := self.headers.get("Authorization", "")) not in good:
                    realm = f'Bearer realm="http://{registry.address}/token",service="x"'
                    return self.answer(401, header=f"Www-Authenticate: {realm}")
                good.remove(token)
                end = path.rpartition("/")[2]
                if self.command == "POST":
                    return self.answer(202, header="Location: /upload?to=here")
                if self.command == "PUT":
                    name = query.partition("digest=")[2] or end
                    if ":" in name and sha256(body) != name:
                        return self.answer(400)
                    registry.there[name] = body
                    return self.answer(201)
                found = registry.there.get(end)
                return self.answer(404) if found is None else self.answer(200, found)

            do_GET = do_HEAD = do_POST = do_PUT = do

            def answer(self, status: int, data: bytes = b"", header: str = "") -> None:
                self.send_response(status)
                if header:
                    self.send_header(*header.split(": ", 1))
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def registry() -> Iterator[Registry]:
    running = Registry()
    thread = threading.Thread(target=running.server.serve_forever)
    thread.start()
    yield running
    running.server.shutdown()
    running.server.server_close()
    thread.join()


@pytest.fixture
def client(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Oras:
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    return Oras(Name(registry.address, "x", "tag"), Cache(), False, "")


def test_a_token_that_is_refused_is_replaced(
    client: Oras, registry: Registry, tmp_path: Path
) -> None:
    data = b"a layer, which is sent twice when the first token is refused" * 10_000
    (tmp_path / "layer").write_bytes(data)
    layer = Blob(sha256(data), sha256(data), len(data), LAYER, path=str(tmp_path / "layer"))
    image = NewImage({"architecture": "amd64", "os": "linux"}, [layer])
    client.push(image)
    assert registry.there == {
        sha256(data): data,
        sha256(image.config): image.config,
        "tag": image.manifest(),
    }
    assert registry.given == 7
    assert client.manifest("tag") == image.manifest()
    descriptor = Descriptor(sha256(data), len(data))
    client.fetch("", [descriptor], Progress(True))
    assert Cache().open(descriptor).read() == data


def test_a_registry_that_gives_no_more_tokens(client: Oras, registry: Registry) -> None:
    registry.there["tag"] = b"{}"
    assert client.manifest("tag") == b"{}"
    registry.gives = False
    with pytest.raises(Error, match="gives none to who is not logged in"):
        client.manifest("tag")
