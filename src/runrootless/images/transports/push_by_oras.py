"""Giving an image in a layout to a registry, by the Python client ``oras``."""

from __future__ import annotations

import os

from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.images.destination import Destination
    from runrootless.images.new_image import NewImage

_CREATED = (200, 201, 202)


def push(destination: Destination, directory: str, image: NewImage, verifies: bool) -> None:
    """Give an image, whose blobs are in a layout, to a registry. Raises ``Error``."""
    from importlib import import_module

    provider: Any = import_module("oras.provider")
    container_module: Any = import_module("oras.container")
    container = container_module.Container(destination.reference)
    last: Exception | None = None
    # Without a check of the certificate there may be none.
    for insecure in (False, True) if not verifies else (False,):
        registry = provider.Registry(
            hostname=container.registry, insecure=insecure, tls_verify=verifies
        )
        try:
            _load_credentials(registry, container)
            _push(registry, container, directory, image)
            return
        except Exception as error:
            last = error
    raise Error(f"oras cannot push {destination.reference}: {last}")


def _load_credentials(registry: Any, container: Any) -> None:
    names = [os.environ.get("REGISTRY_AUTH_FILE", "")]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        names.append(os.path.join(runtime, "containers", "auth.json"))
    config = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    names.append(os.path.join(config, "config.json"))
    registry.auth.load_configs(container, [name for name in names if os.path.isfile(name)])


def _push(registry: Any, container: Any, directory: str, image: NewImage) -> None:
    import json

    manifest = image.manifest()
    read = json.loads(manifest)
    for blob in (*read["layers"], read["config"]):
        path = os.path.join(directory, "blobs", *blob["digest"].split(":"))
        _check(registry.upload_blob(path, container, blob))
    url = f"{registry.prefix}://{container.manifest_url()}"
    headers = {"Content-Type": read["mediaType"]}
    # As it is: its digest is that of the bytes.
    _check(registry.do_request(url, "PUT", data=manifest, headers=headers))


def _check(response: Any) -> None:
    if response.status_code not in _CREATED:
        raise Error(f"the registry answers {response.status_code} {response.reason}")
