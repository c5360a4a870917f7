"""How a user names images: the SOURCE of ``runrootless bundle``, the IMAGE of ``commit``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runrootless.errors import Error

DOCKER, OCI, OCI_ARCHIVE, DOCKER_ARCHIVE, STORAGE, DEBIAN, TAR = (
    "docker",
    "oci",
    "oci-archive",
    "docker-archive",
    "containers-storage",
    "debian",
    "tar",
)
"""The kinds of sources."""

_WITH_PATHS = (OCI, OCI_ARCHIVE, DOCKER_ARCHIVE)
# The reference grammar of github.com/distribution/reference.
_HOST = re.compile(r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_PATH = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha(?:256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})")
_SUITE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_SCHEMES = ("http", "https", "ftp")
_HUB = "docker.io"
_LATEST = "latest"
_HELP = "`runrootless bundle --help`"


@dataclass(frozen=True)
class Name:
    """An image in a registry: ``host`` may have a port, ``reference`` is a tag or a digest."""

    host: str
    path: str
    reference: str

    @property
    def repository(self) -> str:
        """The name without tag and digest."""
        return f"{self.host}/{self.path}"

    def at(self, reference: str) -> str:
        """Return the name with another tag or digest."""
        return f"{self.repository}{'@' if ':' in reference else ':'}{reference}"

    def __str__(self) -> str:
        return self.at(self.reference)


@dataclass(frozen=True)
class Source:
    """What an image is made of: ``text`` as the user has said it.

    ``where`` is a path, or the name of an image or a suite, and ``name`` which image of an
    archive or a layout is meant, empty for the only one.
    """

    kind: str
    text: str
    where: str
    name: str = ""


@dataclass(frozen=True)
class Destination:
    """Where an image is to be written: ``kind`` is OCI, DOCKER_ARCHIVE or DOCKER.

    ``where`` is a path, or of a registry the name with its tag; ``name`` is the tag in a layout,
    and in an archive the image's name with its tag, or empty.
    """

    kind: str
    where: str
    name: str = ""


def parse(text: str) -> Source:
    """Return what a user's word means. Raises Error that says what may be said."""
    kind, colon, rest = text.partition(":")
    if text == "-":
        return Source(TAR, text, text)
    if kind == DOCKER and rest.startswith("//"):
        parse_name(rest[2:])
        return Source(DOCKER, text, rest[2:])
    if kind in _WITH_PATHS and rest:
        path, _, name = rest.partition(":")
        return Source(kind, text, path, name)
    if kind == STORAGE and rest:
        return Source(kind, text, rest)
    if kind == DEBIAN and rest:
        if not _SUITE.fullmatch(rest):
            raise Error(f"{rest!r} is no suite of Debian: say bookworm or stable, for example")
        return Source(kind, text, rest)
    if not colon or text.startswith(("/", "./", "../")):
        if not text:
            raise Error("the source is empty: see `runrootless bundle --help`")
        return Source(TAR, text, text)
    raise Error(f"{text} is no source of an image: {_advice(kind, rest, text)}")


def _advice(kind: str, rest: str, text: str) -> str:
    if kind == DEBIAN:
        return "say which suite, debian:bookworm for example"
    if kind in (*_WITH_PATHS, STORAGE) and not rest:
        return f"say {kind}:{'NAME' if kind == STORAGE else 'PATH'}"
    if kind in _SCHEMES:
        return f"a tar is piped in, `curl -fsSL {text} | runrootless bundle - DIR`"
    if kind == "file":
        return "say the path alone"
    name = rest.lstrip("/") if kind == DOCKER else text
    if is_name(name):
        return f"for one of a registry say docker://{name}, for others see {_HELP}"
    return f"see {_HELP}"


def is_name(text: str) -> bool:
    """Return whether an image of a registry can have a name."""
    try:
        parse_name(text)
    except Error:
        return False
    return True


def parse_destination(text: str) -> Destination:
    """Return where a user wants an image. Raises Error that says what may be said."""
    kind, _, rest = text.partition(":")
    path, colon, name = rest.partition(":")
    if kind == DOCKER and rest.startswith("//"):
        return Destination(DOCKER, _with_tag(rest[2:]))
    if kind == OCI and path:
        if colon and not _TAG.fullmatch(name):
            raise Error(
                f"{text}: {name!r} is no tag: that has letters, digits, `.`, `_` and `-`, "
                "at most 128"
            )
        return Destination(OCI, path, name or _LATEST)
    if kind == DOCKER_ARCHIVE and path:
        return Destination(DOCKER_ARCHIVE, path, _with_tag(name) if colon else "")
    raise Error(
        f"{text!r} is no place for an image: that is oci:PATH[:TAG], "
        "docker-archive:PATH[:NAME:TAG] or docker://HOST/NAME[:TAG]"
    )


def _with_tag(text: str) -> str:
    """Return the name of an image as it was said, with a tag. Raises Error."""
    parse_name(text)
    if "@" in text:
        raise Error(f"{text}: an image is written under a tag")
    return text if ":" in text.rpartition("/")[2] else f"{text}:{_LATEST}"


def parse_name(text: str) -> Name:
    """Return the image of a registry that a name means, as Docker takes it. Raises Error."""
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise Error(f"{text}: {digest!r} is no digest")
    first, slash, others = rest.partition("/")
    if slash and (set(first) & set(".:") or first == "localhost"):
        host, path = first, others
    else:
        host, path = _HUB, rest
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise Error(f"{text}: {tag!r} is no tag")
    if not _HOST.fullmatch(host) or not _PATH.fullmatch(path) or len(path) > 255:
        raise Error(
            f"{text!r} is no name of an image: it is like debian:bookworm, or "
            "registry.example.org/team/app:1.0, in lower case"
        )
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = _HUB
    if host == _HUB and "/" not in path:
        path = f"library/{path}"
    return Name(host, path, digest or tag or _LATEST)
