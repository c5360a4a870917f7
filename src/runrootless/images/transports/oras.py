"""Images by the Python client oras, where skopeo is not installed.

It knows how registries want to be asked, and how they give tokens. Which registry that is, as
whom, and over what, is found as podman and skopeo find it.
"""

from __future__ import annotations

import os
import ssl
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from fcntl import LOCK_EX, flock

from runrootless.errors import Error
from runrootless.images import image
from runrootless.images.streams import Digest
from runrootless.images.transports import credentials, registries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runrootless.images.cache import Cache
    from runrootless.images.image import Descriptor
    from runrootless.images.progress import Progress
    from runrootless.images.reference import Name
    from runrootless.images.transports.registries import Endpoint

_ACCEPT = ", ".join((*image.MANIFESTS, *image.INDEXES))
_PARALLEL = 4
_TRIES = 3
_CHUNK = 1 << 18
_TIMEOUT = (30, 120)
_MISSING = (404,)
_REFUSED = (401, 403)


class _Unreachable(Exception):
    """A registry that does not answer, or not in TLS that is trusted; why, as text."""


class Oras:
    """The images of a name. Raises Error where the client is not installed."""

    def __init__(
        self, name: Name, cache: Cache, tls_verify: bool | None, certificates: str
    ) -> None:
        try:
            import oras.provider
        except ImportError:
            raise Error(
                "neither skopeo nor the Python client for registries is there: "
                "apt-get install skopeo, or pip install 'runrootless[images]'"
            ) from None
        import logging

        logging.getLogger("oras").setLevel(logging.CRITICAL)
        self._provider: Any = oras.provider
        self._name = name
        self._cache = cache
        self._tls_verify = tls_verify
        self._certificates = certificates
        self._endpoints = registries.endpoints(name)
        self._connections: dict[Endpoint, _Connection] = {}
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
        with ThreadPoolExecutor(_PARALLEL) as pool:
            tasks = [pool.submit(self._fetch, blob, progress, over) for blob in blobs]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                over.set()
                raise
        progress.end()

    def _get(self, what: str, shown: str) -> bytes:
        """Return a small document. Raises Error."""
        response = self._request(what, {"Accept": _ACCEPT} if what.startswith("m") else {}, shown)
        with response:
            data = b""
            for part in response.iter_content(_CHUNK):
                data += part
                if len(data) > image.JSON_LIMIT:
                    raise Error(f"{shown} of {self._name} has more than {image.JSON_LIMIT} bytes")
        return data

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
                response = self._connection(endpoint).request(endpoint, what, headers)
            except _Unreachable as error:
                reasons.append(f"{endpoint.host}: {error}")
                continue
            if response.status_code in (200, 206):
                return response
            reasons.append(_reason(response, endpoint, shown))
            response.close()
        raise Error("; ".join(reasons))

    def _connection(self, endpoint: Endpoint) -> _Connection:
        with self._lock:
            if endpoint not in self._connections:
                insecure = endpoint.insecure
                if self._tls_verify is not None:
                    insecure = not self._tls_verify
                self._connections[endpoint] = _Connection(
                    self._provider, endpoint, insecure, self._certificates
                )
            return self._connections[endpoint]


class _Connection:
    """A registry that has been spoken to: how, and as whom. Raises Error, _Unreachable."""

    def __init__(
        self, provider: Any, endpoint: Endpoint, insecure: bool, certificates: str
    ) -> None:
        authorities, clients = registries.certificates(endpoint.host, certificates)
        verify: bool | str = not insecure
        self._bundle = None
        if verify and authorities:
            self._bundle = _bundle(authorities)
            verify = self._bundle.name
        elif verify:
            verify = ssl.get_default_verify_paths().cafile or True
        reasons = []
        for scheme in ("https", "http") if insecure else ("https",):
            registry = provider.Registry(
                endpoint.address, insecure=scheme == "http", tls_verify=verify
            )
            # What the environment says of certificates is not to count before this.
            registry.session.trust_env = True
            registry.session.cert = clients[0] if clients else None
            registry.session.request = _with_timeout(registry.session.request)
            try:
                answer = registry.session.request(
                    "GET", f"{scheme}://{endpoint.address}/v2/", verify=verify
                )
            except OSError as error:
                reasons.append(_shown(error))
                continue
            self._take_credentials(registry, provider, endpoint, answer)
            self._registry, self._scheme = registry, scheme
            return
        raise _Unreachable(reasons[0])

    def _take_credentials(
        self, registry: Any, provider: Any, endpoint: Endpoint, answer: Any
    ) -> None:
        found = credentials.find(endpoint.host, endpoint.path)
        challenge = answer.headers.get("Www-Authenticate", "")
        if challenge.lower().startswith("basic") and not found:
            registry.auth = _Nobody()
        elif challenge.lower().startswith("basic"):
            basic = provider.oras.auth.get_auth_backend(
                "basic", registry.session, tls_verify=registry._tls_verify
            )
            registry.auth = basic
        if found:
            registry.auth.set_basic_auth(*found)

    def request(self, endpoint: Endpoint, what: str, headers: dict[str, str]) -> Any:
        """Return the answer to a request, read as a stream. Raises OSError."""
        url = f"{self._scheme}://{endpoint.address}/v2/{endpoint.path}/{what}"
        try:
            # Without what it is wrapped in, which tries for minutes, whatever the error.
            ask = type(self._registry).do_request
            ask = getattr(ask, "__wrapped__", ask)
            return ask(self._registry, url, headers=dict(headers), stream=True)
        except ValueError:
            # It wants to know who this is, and nothing is kept.
            return _Refusal()
        except OSError as error:
            raise _Unreachable(_shown(error)) from None


class _Nobody:
    """In place of the client's authentication, which would ask for a token where none are given."""

    def authenticate_request(
        self, original: object, headers: dict[str, str], refresh: bool = False
    ) -> tuple[dict[str, str], bool]:
        """Return that there is nothing to be had."""
        return headers, False


class _Refusal:
    """An answer in place of one that the client does not let through."""

    status_code = 401

    def close(self) -> None:
        """Do nothing."""


def _with_timeout(request: Any) -> Any:
    def with_timeout(*arguments: Any, **named: Any) -> Any:
        named.setdefault("timeout", _TIMEOUT)
        return request(*arguments, **named)

    return with_timeout


def _bundle(authorities: Sequence[str]) -> Any:
    """Return a file with these authorities and those of the system."""
    file = tempfile.NamedTemporaryFile(prefix="runrootless-", suffix=".pem")  # noqa: SIM115
    default = ssl.get_default_verify_paths().cafile
    for path in (*([default] if default else []), *authorities):
        with open(path, "rb") as source:
            file.write(source.read() + b"\n")
    file.flush()
    return file


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


def _shown(error: BaseException) -> str:
    """Return what is at the bottom of an error of the client's."""
    cause: Any = error
    while True:
        below = getattr(cause, "reason", None) or (cause.args[0] if cause.args else None)
        if not isinstance(below, BaseException):
            break
        cause = below
    text = str(cause)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"its certificate is not trusted ({text}): put the authority's into "
            "~/.config/containers/certs.d, or say --tls-verify=false"
        )
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER" in text:
        return "it speaks no TLS: say --tls-verify=false, or have it insecure in registries.conf"
    return text
