"""Reading who owns the files of an image's layer, as the layer's tar headers say it.

To be able to give a layer back byte by byte, containers/storage keeps all of its tar but
the files' contents, as tar-split does (github.com/vbatts/tar-split, tar/storage): lines of
JSON, in which the bytes of headers and padding (type 2) and the places of the files
(type 1) take turns.
"""

from __future__ import annotations

import gzip
import json
import tarfile
import zlib
from base64 import b64decode
from re import findall

from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DAMAGE = (
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    gzip.BadGzipFile,
    tarfile.HeaderError,
    zlib.error,
)
_FILE = 1
_BYTES = 2
_OWNED = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE)
# The first ID that is none: (uid_t) -1.
_NO_ID = 0xFFFFFFFF


def owners(path: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, user ID and group ID of each regular file and directory of a layer.

    ``path`` is the layer's ``….tar-split.gz``. Raises ``OSError`` if it cannot be opened,
    ``Error`` if it is damaged.
    """
    with gzip.open(path) as lines:
        try:
            yield from _owners(lines)
        except _DAMAGE as error:
            raise Error(
                f"the description of an image's layer {path} is damaged ({error}): "
                "remove the image and pull it again"
            ) from None


def _owners(lines: gzip.GzipFile) -> Iterator[tuple[str, int, int]]:
    between = b""
    for line in lines:
        entry = json.loads(line)
        if entry["type"] == _BYTES:
            between += b64decode(entry["payload"])
        elif entry["type"] == _FILE:
            # Padding of the file before, and extended headers, come before the header.
            header = tarfile.TarInfo.frombuf(
                between[-tarfile.BLOCKSIZE :], "utf-8", "surrogateescape"
            )
            ids = {"uid": header.uid, "gid": header.gid}
            for name, number in findall(rb"\d+ ([ug]id)=(\d+)\n", between[: -tarfile.BLOCKSIZE]):
                ids[name.decode()] = int(number)
            between = b""
            if header.type in _OWNED and max(ids.values()) < _NO_ID:
                yield _name(entry), ids["uid"], ids["gid"]


def _name(entry: dict[str, str]) -> str:
    if "name" in entry:
        return entry["name"]
    # A name that is not UTF-8.
    return b64decode(entry["name_raw"]).decode("utf-8", "surrogateescape")
