"""Where an image is to be written."""

from __future__ import annotations

import re

from runrootless.errors import Error

LAYOUT, ARCHIVE, REGISTRY = "oci", "docker-archive", "docker"

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# github.com/distribution/reference: a host, and the components of a path.
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_NAME = re.compile(rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*")


class Destination:
    """``transport`` is one of the constants above, ``path`` that of a file or directory, or empty.

    ``name`` is the image's, with host and path, or empty; ``tag`` is its tag.
    """

    __slots__ = ("name", "path", "tag", "transport")

    def __init__(self, transport: str, path: str, name: str, tag: str) -> None:
        self.transport = transport
        self.path = path
        self.name = name
        self.tag = tag

    @property
    def reference(self) -> str:
        """The name with the tag."""
        return f"{self.name}:{self.tag}"


def parse(text: str) -> Destination:
    """Return what ``text`` names. Raises ``Error``."""
    transport, colon, rest = text.partition(":")
    if not colon or not rest:
        raise _no_image(text)
    if transport == LAYOUT:
        path, colon, tag = rest.rpartition(":")
        if not colon or "/" in tag:
            path, tag = rest, "latest"
        if not path or not _TAG.fullmatch(tag):
            raise _no_image(text)
        return Destination(LAYOUT, path, "", tag)
    if transport == ARCHIVE:
        path, colon, rest = rest.partition(":")
        if not path:
            raise _no_image(text)
        name, tag = _split(text, rest) if colon else ("", "")
        return Destination(ARCHIVE, path, name, tag)
    if transport == REGISTRY and rest.startswith("//"):
        name, tag = _split(text, rest[2:])
        return Destination(REGISTRY, "", name, tag)
    raise _no_image(text)


def _split(text: str, name: str) -> tuple[str, str]:
    before, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        before, tag = name, "latest"
    if not _NAME.fullmatch(before) or not _TAG.fullmatch(tag):
        raise _no_image(text)
    return before, tag


def _no_image(text: str) -> Error:
    return Error(
        f"{text!r} is no place for an image: that is oci:PATH[:TAG], "
        "docker-archive:PATH[:NAME:TAG] or docker://HOST/NAME[:TAG]"
    )
