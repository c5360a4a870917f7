"""Images by the Python client oras, where skopeo is not installed.

It knows how registries want to be asked. Which registry that is, as whom, and over what, is found
as podman and skopeo find it.
"""

from __future__ import annotations

import os
import threading
import time
from fcntl import LOCK_EX, flock
from queue import Empty, SimpleQueue

from runrootless.errors import Error
from runrootless.images import image
from runrootless.images.new_image import digest_of
from runrootless.images.streams import Digest
from runrootless.images.transports import registries
from runrootless.images.transports.connection import Connection, UnreachableError, body_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from runrootless.images.cache import Cache
    from runrootless.images.image import Descriptor
    from runrootless.images.new_image import NewImage
    from runrootless.images.progress import Progress
    from runrootless.images.reference import Name
    from runrootless.images.transports.registries import Endpoint

_ACCEPT = ", ".join((*image.MANIFESTS, *image.INDEXES))
_PARALLEL = 4
_TRIES = 3
_PATIENCE = 1
"""For how many seconds threads are waited for that are to end."""
_CHUNK = 1 << 18
_MISSING = (404,)
_REFUSED = (401, 403)
_THERE, _BEGUN, _MADE = 200, 202, 201


class Oras:
    """The images of a name. Raises Error for a registry that is blocked."""

    def __init__(
        self, name: Name, cache: Cache, tls_verify: bool | None, certificates: str
    ) -> None:
        self._name = name
        self._cache = cache
        self._tls_verify = tls_verify
        self._certificates = certificates
        self._endpoints = registries.endpoints(name)
        self._connections: dict[Endpoint, Connection] = {}
        self._lock = threading.Lock()

    def manifest(self, reference: str) -> bytes:
        """Return a manifest or an index as it is stored. Raises Error."""
        return self._get(f"manifests/{reference}", reference)

    def config(self, manifest: str) -> bytes:
        """Return the configuration of a manifest. Raises Error."""
        data = self._cache.read(image.Descriptor(manifest, -1))
        what = f"the manifest of {self._name}"
        document = image.parse_json(data, what)
        digest = image.Descriptor.parse(document.get("config"), what).digest
        return self._get(f"blobs/{digest}", digest)

    def fetch(self, manifest: str, blobs: Sequence[Descriptor], progress: Progress) -> None:
        """Put layers into the cache, several at a time. Raises Error."""
        progress.begin(f"fetching {len(blobs)} layers", sum(blob.size for blob in blobs), of="oras")
        over = threading.Event()
        waiting: SimpleQueue[Descriptor] = SimpleQueue()
        ended: SimpleQueue[BaseException | None] = SimpleQueue()
        for blob in blobs:
            waiting.put(blob)

        def work() -> None:
            while not over.is_set():
                try:
                    self._fetch(waiting.get_nowait(), progress, over)
                    ended.put(None)
                except Empty:
                    return
                except BaseException as error:
                    ended.put(error)

        # No executor's, which the end of the process waits for, as long as the registry likes.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(_PARALLEL)]
        for thread in threads:
            thread.start()
        try:
            for _ in blobs:
                error = ended.get()
                if error is not None:
                    raise error
        except BaseException:
            over.set()
            deadline = time.monotonic() + _PATIENCE
            for thread in threads:
                thread.join(max(0, deadline - time.monotonic()))
            raise
        progress.end()

    def push(self, image: NewImage) -> None:
        """Give an image to the registry, under the name's tag. Raises Error."""
        endpoint = registries.destination(self._name)
        try:
            connection = self._connection(endpoint)
            for layer in image.layers:
                self._give(connection, endpoint, layer.digest, layer.open)
            config, manifest = image.config, image.manifest()
            self._give(connection, endpoint, digest_of(config), lambda: config)
            kind = {"Content-Type": image.media_type}
            what = f"manifests/{self._name.reference}"
            response = connection.request(what, kind, "PUT", lambda: manifest)
            _require(response, (_MADE, _BEGUN), endpoint, "its manifest")
        except UnreachableError as error:
            raise Error(f"cannot push {self._name}: {error}") from None
        except OSError as error:
            raise Error(f"cannot push {self._name}: {error.strerror or error}") from None

    def _give(
        self,
        connection: Connection,
        endpoint: Endpoint,
        digest: str,
        open_body: Callable[[], Any],
    ) -> None:
        """Give a blob to the registry, unless it has it. Raises Error, UnreachableError, OSError.

        Begun anew where the connection breaks off.
        """
        for attempt in range(_TRIES):
            try:
                with connection.request(f"blobs/{digest}", {}, "HEAD") as response:
                    if response.status_code == _THERE:
                        return
                response = connection.request("blobs/uploads/", {"Content-Length": "0"}, "POST")
                _require(response, (_BEGUN,), endpoint, digest)
                where = response.headers.get("Location", "")
                where += f"{'&' if '?' in where else '?'}digest={digest}"
                headers = {"Content-Type": "application/octet-stream"}
                response = connection.request(where, headers, "PUT", open_body)
                _require(response, (_MADE,), endpoint, digest)
                return
            except UnreachableError:
                if attempt == _TRIES - 1:
                    raise

    def _get(self, what: str, shown: str) -> bytes:
        """Return a small document. Raises Error."""
        response = self._request(what, {"Accept": _ACCEPT} if what.startswith("m") else {}, shown)
        with response:
            try:
                return body_of(response)
            except (OSError, ValueError) as error:
                raise Error(f"{shown} of {self._name}: {error}") from None

    def _fetch(self, blob: Descriptor, progress: Progress, over: threading.Event) -> None:
        """Put a blob into the cache, going on where somebody has left off."""
        path = self._cache.path_of(blob.digest)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with open(f"{path}.part", "a+b", buffering=0) as file:
            # Who waits for another finds that it is there.
            flock(file, LOCK_EX)
            if self._cache.has(blob):
                return
            for attempt in range(_TRIES):
                try:
                    self._continue(blob, file, progress, over)
                    break
                except OSError as error:
                    # requests' errors are among them: a connection that was broken off.
                    if attempt == _TRIES - 1 or over.is_set():
                        raise Error(f"{blob.digest} of {self._name}: {error}") from None
            os.rename(f"{path}.part", path)

    def _continue(
        self, blob: Descriptor, file: Any, progress: Progress, over: threading.Event
    ) -> None:
        digest = Digest(blob.digest)
        file.seek(0)
        done = 0
        while data := file.read(_CHUNK):
            digest.update(data)
            done += len(data)
        if done > blob.size:
            file.truncate(0)
            digest, done = Digest(blob.digest), 0
        if done < blob.size or not done:
            headers = {"Range": f"bytes={done}-"} if done else {}
            with self._request(f"blobs/{blob.digest}", headers, blob.digest) as response:
                if done and response.status_code != 206:
                    file.truncate(0)
                    digest, done = Digest(blob.digest), 0
                progress.advance(done)
                for data in response.iter_content(_CHUNK):
                    if over.is_set():
                        raise Error("interrupted")
                    done += len(data)
                    if done > blob.size:
                        break
                    digest.update(data)
                    file.write(data)
                    progress.advance(len(data))
        if done < blob.size:
            raise ConnectionError("the connection was broken off")
        if not digest.is_right() or done > blob.size:
            file.truncate(0)
            raise Error(f"{self._name}: what was sent for {blob.digest} is something else")

    def _request(self, what: str, headers: dict[str, str], shown: str) -> Any:
        """Return the answer of the first place that has something. Raises Error, OSError."""
        reasons = []
        for endpoint in self._endpoints:
            try:
                response = self._connection(endpoint).request(what, headers)
            except UnreachableError as error:
                reasons.append(f"{endpoint.host}: {error}")
                continue
            if response.status_code in (200, 206):
                return response
            reasons.append(_reason(response, endpoint, shown))
            response.close()
        raise Error("; ".join(reasons))

    def _connection(self, endpoint: Endpoint) -> Connection:
        with self._lock:
            if endpoint not in self._connections:
                insecure = endpoint.insecure
                if self._tls_verify is not None:
                    insecure = not self._tls_verify
                self._connections[endpoint] = Connection(endpoint, insecure, self._certificates)
            return self._connections[endpoint]


def _reason(response: Any, endpoint: Endpoint, shown: str) -> str:
    image_name = f"{endpoint.host}/{endpoint.path}"
    if response.status_code in _MISSING:
        return f"{image_name} has no {shown}"
    if response.status_code in _REFUSED:
        return (
            f"{endpoint.host} does not give {image_name} to you: it may not be there, or log in "
            f"with `podman login {endpoint.host}` or `docker login {endpoint.host}`"
        )
    return f"{endpoint.host} answers {response.status_code} for {image_name} {shown}"


def _require(response: Any, wanted: Sequence[int], endpoint: Endpoint, shown: str) -> None:
    """Close a response. Raises Error where it is not as it should be."""
    with response:
        if response.status_code not in wanted:
            reason = _reason(response, endpoint, shown)
            if response.status_code in _REFUSED:
                reason = (
                    f"it does not take that from you: log in with `podman login {endpoint.host}`"
                )
            raise Error(f"cannot push {endpoint.host}/{endpoint.path}: {reason}")
