"""PRoot is downloaded from an HTTP server of the test's own."""

import functools
import hashlib
import http.server
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runrootless.errors import Error
from runrootless.proot import download

CONTENT = b"\x7fELF" + bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT as the server's attribute ``mode`` says, and notes what it is asked."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.asked.append((self.path, asked))
        if self.server.mode == "gone":
            self.send_error(404)
            return
        start = 0
        if asked and self.server.mode != "no ranges":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        content = CONTENT[start:]
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.mode == "broken off" or (
            self.server.mode == "broken off once" and len(self.server.asked) == 1
        ):
            # Less than was promised, and then the connection is closed.
            content = content[: len(content) // 3]
            self.close_connection = True
        self.wfile.write(content)


class Server(http.server.ThreadingHTTPServer):
    mode = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/releases/proot"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, and an environment in which PRoot is downloaded from it."""
    with Server() as server:
        thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
        thread.start()
        for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(variable, raising=False)
            monkeypatch.delenv(variable.upper(), raising=False)
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        monkeypatch.setenv("RUNROOTLESS_PROOT_URL", server.url)
        monkeypatch.setenv("RUNROOTLESS_PROOT_SHA256", SHA256)
        yield server
        server.shutdown()
        thread.join()


Installed = Callable[[], list[str]]


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    def names() -> list[str]:
        directory = tmp_path / "data/runrootless"
        return sorted(path.name for path in directory.iterdir() if path.name != ".lock")

    return names


def test_it_is_downloaded_once(server: Server, tmp_path: Path, installed: Installed) -> None:
    path = download.install()
    assert path.startswith(f"{tmp_path}/data/runrootless/proot-")
    assert Path(path).read_bytes() == CONTENT
    assert os.stat(path).st_mode & 0o7777 == 0o755
    assert download.install() == path
    assert server.asked == [("/releases/proot", "")]
    assert installed() == [os.path.basename(path)]


def test_the_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_DATA_HOME", value)
        assert download.directory() == "/home/somebody/.local/share/runrootless"


def test_a_connection_that_breaks_off_is_resumed(server: Server, installed: Installed) -> None:
    server.mode = "broken off once"
    path = download.install()
    assert Path(path).read_bytes() == CONTENT
    third = len(CONTENT) // 3
    assert [asked for _, asked in server.asked] == ["", f"bytes={third}-"]
    assert installed() == [os.path.basename(path)]


def test_what_a_failed_download_leaves_is_used_by_the_next(
    server: Server, installed: Installed
) -> None:
    server.mode = "broken off"
    with pytest.raises(Error, match=r"cannot download PRoot from http.*RUNROOTLESS_PROOT_URL"):
        download.install()
    (partial,) = installed()
    assert partial.endswith(".part")
    before = len(server.asked)
    server.mode = ""
    assert Path(download.install()).read_bytes() == CONTENT
    (resumed,) = server.asked[before:]
    assert resumed[1].startswith("bytes=") and resumed[1] != "bytes=0-"


def test_a_server_without_ranges(server: Server) -> None:
    server.mode = "broken off"
    with pytest.raises(Error):
        download.install()
    server.mode = "no ranges"
    assert Path(download.install()).read_bytes() == CONTENT


def test_all_of_it_is_there_already(server: Server, tmp_path: Path) -> None:
    directory = tmp_path / "data/runrootless"
    directory.mkdir(parents=True)
    (directory / f"proot-{SHA256[:16]}.part").write_bytes(CONTENT)
    assert Path(download.install()).read_bytes() == CONTENT


def test_a_wrong_file_is_not_kept(
    server: Server, installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = hashlib.sha256(b"another").hexdigest()
    monkeypatch.setenv("RUNROOTLESS_PROOT_SHA256", wrong)
    with pytest.raises(Error) as caught:
        download.install()
    assert SHA256 in str(caught.value) and wrong in str(caught.value)
    assert installed() == []


def test_what_is_not_there(server: Server) -> None:
    server.mode = "gone"
    with pytest.raises(Error, match=r"404.*RUNROOTLESS_PROOT "):
        download.install()
    # That is final.
    assert len(server.asked) == 1


def test_a_mirror_has_to_have_the_release(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a checksum of one's own the one of the release holds for a mirror too."""
    monkeypatch.delenv("RUNROOTLESS_PROOT_SHA256")
    monkeypatch.setitem(download.RELEASES, os.uname().machine, ("http://unused.invalid/", SHA256))
    assert Path(download.install()).read_bytes() == CONTENT


def test_the_proxy_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("RUNROOTLESS_PROOT_URL", "http://releases.invalid/proot")
    assert Path(download.install()).read_bytes() == CONTENT
    assert server.asked == [("http://releases.invalid/proot", "")]


def test_two_at_once_download_it_once(server: Server) -> None:
    paths: list[str] = []
    threads = [threading.Thread(target=lambda: paths.append(download.install())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1 and len(paths) == 4
    assert len(server.asked) == 1


@pytest.mark.parametrize("checksum", ["12", "z" * 64])
def test_a_checksum_that_is_none(
    checksum: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNROOTLESS_PROOT_SHA256", checksum)
    with pytest.raises(Error, match="is no SHA-256"):
        download.install()
    assert server.asked == []


def test_a_url_of_another_kind(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNROOTLESS_PROOT_URL", "file:///etc/passwd")
    with pytest.raises(Error, match="must be an http or https URL"):
        download.install()


def test_a_directory_that_cannot_be_made(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(Error, match="cannot install PRoot in"):
        download.install()


def test_progress_is_shown_on_a_terminal_only(server: Server) -> None:
    script = "from runrootless.proot.download import install; install()"
    silent = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert silent.stdout + silent.stderr == ""
    os.unlink(download.install())
    master, slave = pty.openpty()
    subprocess.run([sys.executable, "-c", script], stderr=slave, check=True)
    os.close(slave)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert "downloading PRoot [" in shown
    assert "100%" in shown


def test_the_releases() -> None:
    assert {"x86_64", "aarch64"} <= download.RELEASES.keys()
    for url, checksum in download.RELEASES.values():
        assert url.startswith("https://github.com/proot-me/proot/releases/download/")
        assert len(bytes.fromhex(checksum)) == 32
