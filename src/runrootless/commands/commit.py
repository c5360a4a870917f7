"""``commit``: an image of what a bundle's root file system has become."""

from __future__ import annotations

import copy
import os
import sys

from runrootless import interrupts
from runrootless.command_line import own
from runrootless.command_line.runc import COMMIT
from runrootless.errors import Error, shown
from runrootless.images import (
    base,
    changes,
    edit_config,
    layer,
    own_namespace,
    reference,
    snapshot,
    volumes,
    write_docker_archive,
    write_layout,
)
from runrootless.images.cache import Cache
from runrootless.images.new_file import NewFile
from runrootless.images.new_image import LAYER, Blob, NewImage, digest_of
from runrootless.images.places_of_bundle import root_of, side_stores_of
from runrootless.images.read_tree import Tree
from runrootless.images.transports import choice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.command_line.runc import Parsed
    from runrootless.images.base import Base
    from runrootless.images.reference import Destination
    from runrootless.images.transports import Transport


def run(options: Parsed) -> int:
    """Write the image; return the exit code. Raises ``Error``, OSError, KeyboardInterrupt."""
    parsed = own.parse("commit", COMMIT, options.arguments[1:], "BUNDLE IMAGE", 2)
    if parsed is None:
        return 0
    with interrupts.Raised():
        digest = _commit(parsed)
    print(digest)
    return 0


def _commit(parsed: Parsed) -> str:
    bundle, name = parsed.arguments
    target = reference.parse_destination(name)
    latest = edit_config.epoch()
    bundle = os.path.abspath(bundle)
    rootfs = root_of(bundle)
    for line in volumes.left_out(bundle):
        sys.stderr.write(f"runrootless: {shown(line)}\n")
    image = base.read(bundle)
    squash = parsed.is_on("squash")
    below = image if image is not None and image.layers and not squash else None
    config = copy.deepcopy(image.config) if image is not None else edit_config.new()
    edit_config.change(config, parsed.get_all("config"))
    transport = _transport(target, parsed)
    _require(target, below, bundle)
    # What the layer is written to: beside the others if that is where it goes.
    with NewFile(_directory_for(target), "" if transport else target.where) as file:
        made = own_namespace.call(lambda: _write(file.fd, bundle, rootfs, below, latest))
        layers = []
        if below is not None:
            layers = [
                Blob(about.digest, one.diff_id, about.size, about.media_type, path=one.path)
                for one in below.layers
                for about in (one.descriptor,)
            ]
        kept, newest = len(layers), 0
        if made is not None:
            layers.append(Blob(made["digest"], made["diff_id"], made["size"], LAYER, fd=file.fd))
            newest = made["newest"]
        edit_config.finish(
            config,
            [one.diff_id for one in layers],
            kept,
            newest,
            parsed.get("author"),
            parsed.get("message"),
        )
        return _put(target, NewImage(config, layers), transport)


def _transport(target: Destination, parsed: Parsed) -> Transport | None:
    """Return what gives the image to a registry, None if it does not go to one."""
    chosen = parsed.get("transport") or choice.AUTO
    own.require_choice("transport", chosen)
    if target.kind != reference.DOCKER:
        return None
    verify = parsed.get("tls-verify")
    return choice.transport(
        chosen,
        reference.parse_name(target.where),
        Cache(),
        verify != "false" if verify else None,
        parsed.get("cert-dir"),
    )


def _require(target: Destination, below: Base | None, bundle: str) -> None:
    """Raise ``Error`` for what is in the way of the image, before anything is read."""
    if target.kind == reference.OCI:
        write_layout.require_place(target.where)
    if target.kind == reference.DOCKER_ARCHIVE and os.path.isdir(target.where):
        raise Error(f"{target.where} is a directory: name the file that is to be written")
    if below is not None:
        below.require_layers()
        if not os.path.exists(os.path.join(bundle, snapshot.NAME)):
            raise Error(
                f"{bundle} has no {snapshot.NAME}, by which changes are found: "
                "--squash writes the whole tree as one layer"
            )


def _directory_for(target: Destination) -> str:
    """Return an existing directory with room for a layer."""
    if target.kind == reference.DOCKER_ARCHIVE:
        return os.path.dirname(os.path.abspath(target.where))
    if target.kind == reference.OCI:
        path = os.path.abspath(target.where)
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        return path
    return os.environ.get("TMPDIR") or "/var/tmp"


def _write(
    fd: int, bundle: str, rootfs: str, below: Base | None, latest: int | None
) -> dict[str, Any] | None:
    tree = Tree(rootfs, side_stores_of(bundle, rootfs))
    found = None
    if below is not None:
        found = changes.find(tree, snapshot.read(bundle), below.contents)
        if not (found.changed or found.gone):
            return None
    return layer.write_layer(fd, "the layer", tree, found, latest)


def _put(target: Destination, image: NewImage, transport: Transport | None) -> str:
    if target.kind == reference.OCI:
        return write_layout.write(target.where, target.name, image)
    if transport is None:
        return write_docker_archive.write(target.where, target.name, image)
    transport.push(image)
    return digest_of(image.manifest())
