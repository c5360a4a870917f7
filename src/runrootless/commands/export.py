"""``export``: a tarball of a bundle's root file system, as its containers see it."""

from __future__ import annotations

import lzma
import os
import subprocess
import sys

from runrootless import interrupts
from runrootless.command_line import own
from runrootless.command_line.runc import EXPORT
from runrootless.errors import Error, named, shown
from runrootless.images import edit_config, layer, own_namespace, volumes
from runrootless.images.gzip_stream import GzipWriter
from runrootless.images.layer import Sink
from runrootless.images.new_file import NewFile
from runrootless.images.pack import Archive
from runrootless.images.places_of_bundle import root_of, side_stores_of
from runrootless.images.read_tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.command_line.runc import Parsed

_STANDARD_OUTPUT = "-"
_ENDS = ("", ".tar", ".gz", ".xz", ".zst")


def run(options: Parsed) -> int:
    """Write the tarball; return the exit code. Raises ``Error``, OSError, KeyboardInterrupt."""
    parsed = own.parse("export", EXPORT, options.arguments[1:], "BUNDLE -|FILE", 2)
    if parsed is None:
        return 0
    bundle, name = parsed.arguments
    end = "" if name == _STANDARD_OUTPUT else os.path.splitext(name)[1]
    if end not in _ENDS:
        raise Error(
            f"{name}: it is not known how to write {end}: a tarball is .tar, .tar.gz, .tar.xz or "
            ".tar.zst"
        )
    bundle = os.path.abspath(bundle)
    rootfs = root_of(bundle)
    for line in volumes.left_out(bundle):
        sys.stderr.write(f"runrootless: {shown(line)}\n")
    latest = edit_config.epoch()
    with interrupts.Raised():
        if name == _STANDARD_OUTPUT:
            if os.isatty(1):
                raise Error("a tarball is nothing for a terminal: redirect the output")
            _export(1, "the standard output", "", bundle, rootfs, latest)
            return 0
        if os.path.isdir(name):
            raise Error(f"{name} is a directory: name the file that is to be written")
        directory, base = os.path.split(os.path.abspath(name))
        try:
            with NewFile(directory, name) as file:
                _export(file.fd, name, end, bundle, rootfs, latest)
                file.keep(base)
        except OSError as error:
            raise named(error, name) from None
    return 0


def _export(fd: int, name: str, end: str, bundle: str, rootfs: str, latest: int | None) -> None:
    own_namespace.call(lambda: _write(fd, name, end, bundle, rootfs, latest))


def _write(fd: int, name: str, end: str, bundle: str, rootfs: str, latest: int | None) -> None:
    tree = Tree(rootfs, side_stores_of(bundle, rootfs))
    sink = Sink(fd, name)
    if end == ".gz":
        compressed = GzipWriter(sink.write)
        try:
            layer.write_tarball(Archive(compressed.write, latest, for_tar=True), tree)
            compressed.close()
        finally:
            compressed.leave()
    elif end == ".xz":
        compressor = lzma.LZMACompressor()

        def write(data: bytes) -> None:
            sink.write(compressor.compress(data))

        layer.write_tarball(Archive(write, latest, for_tar=True), tree)
        sink.write(compressor.flush())
    elif end == ".zst":
        _write_through(["zstd", "-q", "-T0", "-c"], fd, name, tree, latest)
    else:
        layer.write_tarball(Archive(sink.write, latest, for_tar=True), tree)


def _write_through(command: list[str], fd: int, name: str, tree: Tree, latest: int | None) -> None:
    """Write the tarball by way of a program that compresses it."""
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=fd, cwd="/")
    except FileNotFoundError:
        raise Error(f"{name} is to be compressed by {command[0]}, which is not installed") from None
    with process:
        assert process.stdin is not None
        sink = Sink(process.stdin.fileno(), command[0])
        layer.write_tarball(Archive(sink.write, latest, for_tar=True), tree)
        process.stdin.close()
    if process.returncode:
        raise Error(f"{command[0]} has failed to compress {name}")
