"""Where the images of a registry are got: containers-registries.conf(5), containers-certs.d(5)."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass

from runrootless import home
from runrootless.errors import Error
from runrootless.images.reference import Name
from runrootless.toml_file import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_SYSTEM = "/etc/containers"
_VARIABLE = "CONTAINERS_REGISTRIES_CONF"
# The registry of Docker Hub is not at the name that its images have.
_HOSTS = {"docker.io": "registry-1.docker.io"}


@dataclass(frozen=True)
class Endpoint:
    """A place to get an image from: ``host`` (with a port) and ``path``.

    One that is ``insecure`` may have any certificate, or speak plain HTTP.
    """

    host: str
    path: str
    insecure: bool

    @property
    def address(self) -> str:
        """The host as it is connected to."""
        return _HOSTS.get(self.host, self.host)


def endpoints(name: Name) -> list[Endpoint]:
    """Return where an image may be got, what is to be tried first before the others.

    Raises Error for a registry that is blocked, and for a configuration that is no TOML.
    """
    table = _allowed(name)
    prefix = _prefix(table)
    found = []
    for mirror in table.get("mirror") or ():
        by_digest = ":" in name.reference
        wanted = mirror.get("pull-from-mirror") or (
            "digest-only" if table.get("mirror-by-digest-only") else "all"
        )
        if wanted != ("tag-only" if by_digest else "digest-only"):
            found.append(_endpoint(name, prefix, mirror))
    return [*found, _endpoint(name, prefix, table)]


def destination(name: Name) -> Endpoint:
    """Return where an image is to be put. Raises Error as ``endpoints`` does.

    As podman and skopeo have it, that is where its name says: what is said of other places and
    mirrors is for getting images.
    """
    return Endpoint(name.host, name.path, bool(_allowed(name).get("insecure")))


def _allowed(name: Name) -> dict[str, Any]:
    table = _registry(name)
    if table.get("blocked"):
        raise Error(f"{name.host} is blocked in {_SYSTEM}/registries.conf, or in one of your own")
    return table


def _endpoint(name: Name, prefix: str, table: dict[str, Any]) -> Endpoint:
    repository = name.repository
    location = table.get("location")
    if location and prefix and not prefix.startswith("*."):
        repository = location + repository[len(prefix) :]
    elif location:
        repository = f"{location}/{name.path}"
    host, _, path = repository.partition("/")
    return Endpoint(host, path, bool(table.get("insecure")))


def _registry(name: Name) -> dict[str, Any]:
    """Return the table of the longest prefix that fits; an empty one where none does."""
    best: dict[str, Any] = {}
    for table in _tables().values():
        if _fits(name, _prefix(table)) and len(_prefix(table)) > len(_prefix(best)):
            best = table
    return best


def _fits(name: Name, prefix: str) -> bool:
    if prefix.startswith("*."):
        return name.host.endswith(prefix[1:])
    repository = name.repository
    return bool(prefix) and (
        repository == prefix
        or (repository.startswith(prefix) and repository[len(prefix)] in "/:@")
        or (name.host.startswith(f"{prefix}:") and "/" not in prefix)
    )


def _prefix(table: dict[str, Any]) -> str:
    return str(table.get("prefix") or table.get("location") or "")


def _tables() -> dict[str, dict[str, Any]]:
    """Return the tables of all registries by prefix; what is read later counts."""
    found: dict[str, dict[str, Any]] = {}
    for path in _files():
        try:
            with open(path, "rb") as file:
                text = file.read()
        except OSError:
            continue
        try:
            document = parse(text.decode(), path)
        except UnicodeDecodeError as error:
            raise Error(f"{path} is not valid TOML: {error}: correct or remove it") from None
        for table in document.get("registry") or ():
            if isinstance(table, dict):
                found[_prefix(table)] = table
    return found


def _files() -> Iterator[str]:
    own = _own_configuration()
    named = os.environ.get(_VARIABLE)
    candidates = [named] if named else [f"{one}/registries.conf" for one in (*own, _SYSTEM)]
    for path in candidates:
        if os.path.exists(path):
            yield path
            break
    for directory in (_SYSTEM, *own):
        yield from sorted(glob.glob(f"{glob.escape(directory)}/registries.conf.d/*.conf"))


def _own_configuration() -> list[str]:
    """Return the user's directory of configuration, none where there is no home directory."""
    path = home.where("XDG_CONFIG_HOME", ".config")
    return [os.path.join(path, "containers")] if path else []


def certificates(host: str, directory: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the files with authorities for a host, and those with client certificates and keys.

    ``directory`` is the only one that is looked at, if it is not empty. Raises Error where it
    is not there.
    """
    if directory and not os.path.isdir(directory):
        raise Error(f"--cert-dir {directory} is no directory")
    own = [f"{one}/certs.d" for one in _own_configuration()]
    places = (*own, f"{_SYSTEM}/certs.d", "/etc/docker/certs.d")
    candidates = [directory] if directory else [os.path.join(one, host) for one in places]
    found = next((one for one in candidates if os.path.isdir(one)), None)
    if found is None:
        return [], []
    names = sorted(os.path.join(found, name) for name in os.listdir(found))
    authorities = [name for name in names if name.endswith(".crt")]
    clients = [
        (name, f"{name.removesuffix('.cert')}.key")
        for name in names
        if name.endswith(".cert") and f"{name.removesuffix('.cert')}.key" in names
    ]
    return authorities, clients
