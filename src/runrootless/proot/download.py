"""Installing a static release of PRoot for this user.

Nothing unverified is ever executable: a file is downloaded beside its place, under a name
that holds its checksum, and is renamed when all of it is there and its SHA-256 is right.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request

from runrootless import __version__, home
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

URL_VARIABLE = "RUNROOTLESS_PROOT_URL"
SHA256_VARIABLE = "RUNROOTLESS_PROOT_SHA256"

_BASE = "https://github.com/proot-me/proot/releases/download/v5.3.0/proot-v5.3.0-"
# By machine as uname(2) tells it.  The project publishes no checksums; these are the ones
# that its users pin, independently of each other, for the same URLs: see docs/proot.md.
RELEASES = {
    "x86_64": (
        _BASE + "x86_64-static",
        "d1eb20cb201e6df08d707023efb000623ff7c10d6574839d7bb42d0adba6b4da",
    ),
    "aarch64": (
        _BASE + "aarch64-static",
        "fa10b1a7818c2f5b1dcb5834450570c368c9ecf66d31521509621b95c4538a45",
    ),
    "armv7l": (
        _BASE + "arm-static",
        "bf186a37c7a19621e5bf3cfdf6bce54bfa2e220f91eb7196318e699ac174cc69",
    ),
}
"""Release and SHA-256 for each machine."""

_BLOCK = 1 << 16
_TIMEOUT = 30
_ATTEMPTS = 4
_MAXIMUM_SIZE = 64 << 20
_RANGE_NOT_SATISFIABLE = 416


def directory() -> str:
    """Return where PRoot is installed: runrootless below $XDG_DATA_HOME.

    Its default is ~/.local/share (XDG Base Directory Specification). Raises ``Error`` if there is
    no home directory.
    """
    return os.path.join(home.directory("XDG_DATA_HOME", ".local/share"), "runrootless")


def install() -> str:
    """Return the path of an installed static PRoot, downloading it if it is not there.

    The URL and SHA-256 are those of ``RELEASES``.  $RUNROOTLESS_PROOT_URL names another
    place of the same file, or of another one if $RUNROOTLESS_PROOT_SHA256 says its checksum.

    Raises ``Error`` if there is no release for this machine, it cannot be downloaded, or it
    is not the right file.
    """
    url, checksum = _source()
    where = directory()
    path = os.path.join(where, f"proot-{checksum[:16]}")
    if os.access(path, os.X_OK):
        return path
    try:
        os.makedirs(where, 0o755, exist_ok=True)
        # Two containers at once: the second waits and finds what the first has installed.
        with _locked(os.path.join(where, ".lock")):
            if not os.access(path, os.X_OK):
                _install(url, checksum, path)
    except OSError as failure:
        raise Error(f"cannot install PRoot in {where}: {failure.strerror or failure}") from None
    return path


def _source() -> tuple[str, str]:
    machine = os.uname().machine
    url, checksum = RELEASES.get(machine, ("", ""))
    url = os.environ.get(URL_VARIABLE, "") or url
    checksum = (os.environ.get(SHA256_VARIABLE, "") or checksum).lower()
    if not url or not checksum:
        raise Error(
            f"no PRoot found, and no release of it is known for {machine}: install proot, or give "
            f"its path with RUNROOTLESS_PROOT, or where a static one is with {URL_VARIABLE} and "
            f"{SHA256_VARIABLE}"
        )
    if len(checksum) != 64 or checksum.strip("0123456789abcdef"):
        raise Error(f"{SHA256_VARIABLE}={checksum} is no SHA-256: it has 64 hexadecimal digits")
    if not url.startswith(("https://", "http://")):
        raise Error(f"{URL_VARIABLE}={url} must be an http or https URL")
    return url, checksum


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(url: str, checksum: str, path: str) -> None:
    partial = f"{path}.part"
    failure = ""
    for _ in range(_ATTEMPTS):
        try:
            _download(url, partial)
        except urllib.error.HTTPError as error:
            failure = f"{error.code} {error.reason}"
            if error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                break
        except (OSError, http.client.HTTPException) as error:
            failure = str(getattr(error, "reason", None) or error)
        else:
            failure = ""
            break
    if failure:
        # What is there stays, and the next call goes on from it.
        raise Error(
            f"cannot download PRoot from {url}: {failure}: install proot, "
            f"set RUNROOTLESS_PROOT to its path, or {URL_VARIABLE} to a mirror"
        )
    found = _checksum(partial)
    if found != checksum:
        os.unlink(partial)
        raise Error(
            f"what {url} gave is not the PRoot expected: its SHA-256 is {found}, not {checksum}; "
            f"another file than the release needs {SHA256_VARIABLE}"
        )
    os.chmod(partial, 0o755)
    os.rename(partial, path)


def _download(url: str, partial: str) -> None:
    """Append to the file ``partial`` what it lacks of what is at ``url``.

    Raises OSError, http.client.HTTPException where the connection breaks off.
    """
    with open(partial, "ab") as file:
        start = file.tell()
        request = urllib.request.Request(url, headers={"User-Agent": f"runrootless/{__version__}"})
        if start:
            request.add_header("Range", f"bytes={start}-")
        try:
            # urllib takes the proxy from http_proxy, https_proxy and no_proxy.
            answer = urllib.request.build_opener().open(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code == _RANGE_NOT_SATISFIABLE and start:
                # All of it is there already, or it is another file: the checksum tells.
                return
            raise
        with answer:
            if start and answer.status != http.HTTPStatus.PARTIAL_CONTENT:
                # The server does not know ranges, and sends all.
                file.truncate(0)
                start = 0
            length = answer.headers.get("Content-Length", "")
            total = start + int(length) if length.isdigit() else 0
            _copy(answer, file, start, total)


def _copy(answer: http.client.HTTPResponse, file: BinaryIO, done: int, total: int) -> None:
    write = file.write
    shown = os.isatty(2)
    while block := answer.read(_BLOCK):
        write(block)
        done += len(block)
        if done > _MAXIMUM_SIZE:
            file.truncate(0)
            raise Error(f"what is downloaded for PRoot is larger than {_MAXIMUM_SIZE >> 20} MiB")
        if shown:
            _show(done, total)
    if shown:
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()
    if total and done < total:
        raise http.client.IncompleteRead(b"", total - done)


def _show(done: int, total: int) -> None:
    if total:
        filled = 30 * done // total
        bar = f"[{'#' * filled}{'.' * (30 - filled)}] {100 * done // total:3d}%"
    else:
        bar = ""
    sys.stderr.write(f"\rdownloading PRoot {bar} {done / 1e6:.1f} MB")
    sys.stderr.flush()


def _checksum(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_BLOCK):
            digest.update(piece)
    return digest.hexdigest()
