"""A registry that is spoken to by the Python client oras: over what, and as whom.

The client sends the requests. Who answers a registry that wants to know who asks is ours: the
client's own keeps to a token that was refused, for one that has expired or is not for pushing,
and it knows no identity tokens. That is the token authentication of the distribution project,
and its OAuth 2.0: "Token Authentication Specification", "Oauth2 Token Authentication".
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import ssl
import threading
from urllib.parse import urlsplit

import oras.auth.utils
import oras.provider

from runrootless.images.image import JSON_LIMIT
from runrootless.images.transports import credentials, registries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from runrootless.images.transports.credentials import Credentials
    from runrootless.images.transports.registries import Endpoint

    _Origin = tuple[str, str, int]

_TIMEOUT = (30, 120)
_CLIENT = "runrootless"
_CHUNK = 1 << 16
# ValueError: an address that is none, which a registry may redirect to.
_FAILURES = (OSError, ValueError)
_PORTS = {"http": 80, "https": 443}

logging.getLogger("oras").setLevel(logging.CRITICAL)


class UnreachableError(Exception):
    """A registry that does not answer, not in TLS that is trusted, or not to whoever this is.

    Its text says why.
    """


class Connection:
    """A registry: an endpoint, and how it is spoken to. Raises Error, UnreachableError."""

    def __init__(self, endpoint: Endpoint, insecure: bool, certificates: str) -> None:
        self._endpoint = endpoint
        authorities, clients = registries.certificates(endpoint.host, certificates)
        verify: bool | str = not insecure
        self._bundle = None
        if verify and authorities:
            self._bundle = _bundle(authorities)
            verify = f"/proc/self/fd/{self._bundle.fileno()}"
        elif verify:
            verify = ssl.get_default_verify_paths().cafile or True
        reasons = []
        for scheme in ("https", "http") if insecure else ("https",):
            registry: Any = oras.provider.Registry(
                endpoint.address, insecure=scheme == "http", tls_verify=verify
            )
            session = registry.session
            # What the environment says of certificates is not to count before this.
            session.trust_env = True
            # Nor what ~/.netrc says before the credentials.
            session.auth = _as_it_is
            # Nor on the way to where a registry redirects.
            session.rebuild_auth = _keep_to_the_origin
            session.hooks["response"].append(_leave_redirect_unread)
            session.cert = clients[0] if clients else None
            session.request = _with_timeout(session.request)
            url = f"{scheme}://{endpoint.address}"
            try:
                session.request("GET", f"{url}/v2/", verify=verify, stream=True).close()
            except _FAILURES as error:
                reasons.append(_shown(error))
                continue
            found = credentials.find(endpoint.host, endpoint.path)
            registry.auth = self._authentication = _Authentication(
                session, verify, found, bool(verify), _origin(url)
            )
            self._registry, self._url = registry, url
            return
        raise UnreachableError(reasons[0])

    def request(
        self,
        what: str,
        headers: dict[str, str],
        method: str = "GET",
        open_body: Callable[[], Any] = lambda: None,
    ) -> Any:
        """Return the answer to a request, read as a stream.

        ``what`` is a path in the repository, or an address that the registry has given.
        ``open_body`` returns what is sent, bytes or an open file.
        """
        url = what
        if what.startswith("/"):
            url = f"{self._url}{what}"
        elif not what.startswith(("http://", "https://")):
            url = f"{self._url}/v2/{self._endpoint.path}/{what}"
        headers = {**headers, **self._authentication.headers(url)}
        body = open_body()
        try:
            # Without what it is wrapped in, which tries for minutes, whatever the error.
            ask = type(self._registry).do_request
            ask = getattr(ask, "__wrapped__", ask)
            return ask(self._registry, url, method, data=body, headers=headers, stream=True)
        except _RefusedError as error:
            return error.response
        except _FAILURES as error:
            raise UnreachableError(_shown(error)) from None
        finally:
            if hasattr(body, "close"):
                body.close()


class _RefusedError(Exception):
    """A registry knows who asks, and refuses, in this response."""

    def __init__(self, response: Any) -> None:
        self.response = response


class _Authentication:
    """Answers a registry that wants to know who asks. Any thread may call any method."""

    def __init__(
        self,
        session: Any,
        verify: bool | str,
        found: Credentials | None,
        is_verified: bool,
        origin: _Origin,
    ) -> None:
        self._session = session
        self._verify = verify
        self._is_verified = is_verified
        self._origin = origin
        self._found = found
        self._lock = threading.Lock()
        self._value = ""

    def headers(self, url: str) -> dict[str, str]:
        """Return what is to be sent to an address before it is asked for."""
        is_known = self._value and _origin(url) == self._origin
        return {"Authorization": self._value} if is_known else {}

    def authenticate_request(
        self, response: Any, headers: dict[str, str], refresh: bool = False
    ) -> tuple[dict[str, str], bool]:
        """Return the headers to send in the place of others: what the client calls.

        Raises _RefusedError where there is nothing else to be said, and UnreachableError.
        """
        self._require_own(response)
        before = headers.get("Authorization", "")
        with self._lock:
            # Else another thread has been here since.
            if before == self._value:
                self._value = self._answer(response, before)
            value = self._value
        response.close()
        body = getattr(response.request, "body", None)
        if body is not None and hasattr(body, "seek"):
            # The client gives the same file once more.
            body.seek(0)
        return {**headers, "Authorization": value}, True

    def _require_own(self, response: Any) -> None:
        """Raise for what is not of the registry itself: nobody else is told who asks.

        A registry may redirect to any server, which may want a password for any other one.
        """
        if not response.history and _origin(response.url) == self._origin:
            return
        if not response.headers.get("Www-Authenticate"):
            raise _RefusedError(response)
        response.close()
        host = urlsplit(response.url).netloc.rpartition("@")[2]
        raise UnreachableError(
            f"it sends on to {host}, which wants to know who asks, and is not told: "
            "the credentials are for the registry alone"
        )

    def _answer(self, response: Any, before: str) -> str:
        challenge = response.headers.get("Www-Authenticate", "")
        scheme = challenge.partition(" ")[0].lower()
        if scheme == "bearer":
            return f"Bearer {self._token(oras.auth.utils.parse_auth_header(challenge))}"
        value = self._basic()
        if scheme != "basic" or not value or value == before:
            raise _RefusedError(response)
        return value

    def _basic(self) -> str:
        if self._found is None or self._found.identity_token:
            return ""
        text = f"{self._found.user}:{self._found.password}"
        return f"Basic {base64.b64encode(text.encode()).decode()}"

    def _token(self, challenge: Any) -> str:
        realm = challenge.realm or ""
        if not realm.startswith(("https://", "http://")):
            raise UnreachableError(f"it names no server for tokens: {realm!r}")
        if self._is_verified and not realm.startswith("https://"):
            raise UnreachableError(
                f"it wants the password sent to {realm}, where anybody could read it"
            )
        wanted = {"service": challenge.service, "scope": challenge.scope}
        wanted = {name: value for name, value in wanted.items() if value}
        token = self._found.identity_token if self._found is not None else ""
        try:
            if token:
                wanted |= {"grant_type": "refresh_token", "refresh_token": token}
                wanted["client_id"] = _CLIENT
                # Where it redirects it would be sent once more.
                answer = self._session.request(
                    "POST",
                    realm,
                    data=wanted,
                    verify=self._verify,
                    stream=True,
                    allow_redirects=False,
                )
            else:
                basic = self._basic()
                headers = {"Authorization": basic} if basic else {}
                answer = self._session.request(
                    "GET", realm, params=wanted, headers=headers, verify=self._verify, stream=True
                )
            with answer:
                document = json.loads(body_of(answer)) if answer.status_code == 200 else {}
        except (*_FAILURES, RecursionError) as error:
            raise UnreachableError(f"its server for tokens, {realm}: {_shown(error)}") from None
        given = (
            document.get("token") or document.get("access_token")
            if isinstance(document, dict)
            else None
        )
        if not isinstance(given, str) or not given.isprintable():
            who = "you" if self._found is not None else "who is not logged in"
            raise UnreachableError(
                f"its server for tokens, {realm}, gives none to {who} ({answer.status_code} "
                f"{answer.reason}): log in with `podman login` or `docker login`"
            )
        return given


def body_of(response: Any) -> bytes:
    """Return what a small document consists of. Raises ValueError for a large one, OSError."""
    parts = []
    size = 0
    for part in response.iter_content(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > JSON_LIMIT:
            raise ValueError(f"it sends more than {JSON_LIMIT} bytes")
    return b"".join(parts)


def _origin(url: str) -> _Origin:
    """Return the origin of an address: RFC 6454. One that is none is nobody's."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", "", 0


def _keep_to_the_origin(request: Any, response: Any) -> None:
    """Leave out who asks where another server is asked: in the place of rebuild_auth().

    That would tell it what ~/.netrc says.
    """
    if _origin(request.url) != _origin(response.request.url):
        request.headers.pop("Authorization", None)


def _leave_redirect_unread(response: Any, **named: Any) -> Any:
    """Empty a response that redirects: the client would read all of it, however large."""
    if response.is_redirect:
        response.close()
        response.raw = io.BytesIO()
    return response


def _as_it_is(request: Any) -> Any:
    return request


def _with_timeout(request: Any) -> Any:
    def with_timeout(*arguments: Any, **named: Any) -> Any:
        named.setdefault("timeout", _TIMEOUT)
        return request(*arguments, **named)

    return with_timeout


def _bundle(authorities: Sequence[str]) -> Any:
    """Return a file with these authorities and those of the system.

    It has no name that could outlive the process, which may end without a word.
    """
    file = os.fdopen(os.memfd_create("authorities", os.MFD_CLOEXEC), "wb")
    default = ssl.get_default_verify_paths().cafile
    for path in (*([default] if default else []), *authorities):
        with open(path, "rb") as source:
            file.write(source.read() + b"\n")
    file.flush()
    return file


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
