"""Who the user is to a registry: containers-auth.json(5), which is Docker's config.json as well."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from dataclasses import dataclass

from runrootless import home
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# As whom Docker Hub is entered in these files.
_HUB = ("docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")
_PATIENCE = 60
# The user that a credential helper names where the secret is an identity token.
_TOKEN_USER = "<token>"


@dataclass(frozen=True)
class Credentials:
    """A user and the password, or an identity token, by which a registry's server gives tokens."""

    user: str
    password: str
    identity_token: str = ""


def find(host: str, path: str) -> Credentials | None:
    """Return who the user is for an image of a registry, None where nothing is kept.

    What is kept for a part of a registry counts before what is kept for the whole. Raises Error
    where a credential helper fails.
    """
    for file in _files():
        document = _read(file)
        auths = _table(document, "auths")
        for key in _keys(host, path):
            helper = _table(document, "credHelpers").get(key)
            if isinstance(helper, str):
                found = _ask(helper, key)
                if found is not None:
                    return found
            entry = auths.get(key)
            if isinstance(entry, dict) and (entry.get("auth") or entry.get("identitytoken")):
                return _decode(entry, file)
        store = document.get("credsStore")
        if isinstance(store, str) and store:
            for key in _names(host):
                found = _ask(store, key)
                if found is not None:
                    return found
    return None


def _files() -> Iterator[str]:
    named = os.environ.get("REGISTRY_AUTH_FILE")
    if named:
        yield named
        return
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    runtime = runtime or f"/run/containers/{os.getuid()}"
    yield f"{runtime}/containers/auth.json"
    configuration = home.where("XDG_CONFIG_HOME", ".config")
    if configuration:
        yield f"{configuration}/containers/auth.json"
    docker = os.environ.get("DOCKER_CONFIG") or home.where("DOCKER_CONFIG", ".docker")
    if docker:
        yield f"{docker}/config.json"


def _keys(host: str, path: str) -> Iterator[str]:
    for name in _names(host):
        parts = path.split("/")
        while parts:
            yield f"{name}/{'/'.join(parts)}"
            parts.pop()
        yield name
        yield f"https://{name}"
        yield f"https://{name}/v1/"


def _names(host: str) -> tuple[str, ...]:
    return _HUB if host in _HUB else (host,)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            document = json.load(file)
    except OSError:
        return {}
    except ValueError as error:
        raise Error(f"{path} is not valid JSON: {error}: mend it, or log in again") from None
    return document if isinstance(document, dict) else {}


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _decode(entry: dict[str, Any], file: str) -> Credentials:
    token = str(entry.get("identitytoken") or "")
    try:
        text = base64.b64decode(str(entry.get("auth") or "")).decode()
    except ValueError:
        text = ""
    user, colon, password = text.partition(":")
    if not colon and not token:
        raise Error(f"{file} has something that is no user and password: log in again")
    return Credentials(user, password.strip("\0"), token)


def _ask(helper: str, server: str) -> Credentials | None:
    """Return what a credential helper says: docker-credential-helpers' protocol."""
    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise Error(f"{helper!r} is no name of a credential helper")
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, timeout=_PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Error(f"the credential helper {program} does not answer: {error}") from None
    if done.returncode:
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        if "not found" in said:
            return None
        raise Error(f"the credential helper {program} fails: {said}")
    try:
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise Error(f"the credential helper {program} answers with no user and secret") from None
    if user == _TOKEN_USER:
        return Credentials("", "", secret)
    return Credentials(user, secret)
