"""``bundle``: a bundle of an image, of a root file system's tar, or of a distribution."""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import dataclass, replace

from runrootless import home, interrupts
from runrootless.command_line import own
from runrootless.command_line.runc import BUNDLE
from runrootless.errors import Error, shown
from runrootless.images import build, config, image, reference, rootfs_tar, snapshot, volumes
from runrootless.images.archive import Archive, docker_image
from runrootless.images.cache import Cache
from runrootless.images.layout import Directory, Layout
from runrootless.images.new_directory import NewDirectory
from runrootless.images.progress import Progress
from runrootless.images.streams import Limit
from runrootless.images.transports import choice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrootless.command_line.runc import Parsed
    from runrootless.images.image import Image
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SHELLS = ("ash", "bash", "dash", "fish", "ksh", "sh", "zsh")
_MAXIMUM = 64 << 30
"""What an image may come to, in bytes, unless the user says otherwise."""


@dataclass(frozen=True)
class _Options:
    """What the command line says, as ``manual`` has it."""

    source: str
    directory: str
    command: list[str]
    force: bool
    tty: bool
    quiet: bool
    user: str
    platform: str
    mirror: str
    transport: str
    tls_verify: bool | None
    cert_dir: str
    max_size: int


def run(command_line: Parsed) -> int:
    """Make the bundle that the command line asks for; return the exit code.

    Raises ``Error`` and ``OSError``; then there is no bundle.
    """
    options = _parse(command_line.arguments[1:])
    if options is None:
        return 0
    source = reference.parse(options.source)
    if options.mirror and source.kind != reference.DEBIAN:
        raise Error("--mirror is for debian:SUITE")
    here = image.Platform.here()
    platform = image.Platform.parse(options.platform) if options.platform else here
    progress = Progress(options.quiet)
    limit = Limit(options.max_size)
    signal.signal(signal.SIGTERM, _end)
    with interrupts.Raised(), NewDirectory(options.directory, options.force) as directory:
        found = _get(source, platform, options, limit, progress)
        if options.platform and not platform.is_met_by(found.platform):
            raise Error(
                f"{source.text} is for {found.platform}, and there is no other in it: "
                f"it cannot be had for {platform}"
            )
        try:
            notes = build.unpack(found, directory.fd, limit, progress)
        except Error:
            found.check()
            raise
        found.check()
        if source.kind == reference.TAR:
            rootfs_tar.require_root(directory.fd, source.where)
        rootfs = f"/proc/self/fd/{directory.fd}/{build.ROOTFS}"
        made = config.convert(
            found.config, rootfs, found.source, options.command, options.tty, options.user
        )
        mounts, left = volumes.provide(
            f"/proc/self/fd/{directory.fd}", made.volumes, made.spec["mounts"], limit
        )
        made.spec["mounts"] += mounts
        made.notes.extend(left)
        build.write_json(directory.fd, "config.json", made.spec)
        build.write_json(directory.fd, build.IMAGE, build.describe(found))
        snapshot.write(f"/proc/self/fd/{directory.fd}")
        directory.finish()
    if not options.platform and not here.runs(found.platform):
        made.notes.append(
            f"{source.text} is for {found.platform}, and this machine is {here}: "
            "its programs may not run here"
        )
    if not options.tty and _is_shell(made.spec["process"]["args"]):
        made.notes.append("without --tty a shell has no prompt")
    for note in (*notes, *made.notes) if sys.stderr is not None else ():
        sys.stderr.write(f"runrootless: {shown(note)}\n")
    return 0


def _end(number: int, frame: object) -> None:
    """End as by a signal, when what was begun is removed."""
    raise SystemExit(128 + number)


def _get(
    source: reference.Source,
    platform: image.Platform,
    options: _Options,
    limit: Limit,
    progress: Progress,
) -> Image:
    where, text = home.expand(source.where), source.text
    if where != "-":
        # Another process opens it, in another directory.
        where = os.path.abspath(where)
    if source.kind == reference.OCI:
        return replace(Layout(Directory(where), text).image(source.name, platform), layout=where)
    if source.kind in (reference.OCI_ARCHIVE, reference.DOCKER_ARCHIVE):
        archive = _archive(where, limit)
        if source.kind == reference.OCI_ARCHIVE:
            return replace(Layout(archive, text).image(source.name, platform), layout=where)
        return docker_image(archive, text, source.name)
    if source.kind == reference.TAR:
        return rootfs_tar.tar_image(where, platform, text)
    if source.kind == reference.DEBIAN:
        from runrootless.images.debian import debian_image

        progress.begin(f"{source.where} is made by mmdebstrap: a minute or two")
        return debian_image(source.where, options.mirror, platform)
    if source.kind == reference.STORAGE:
        from runrootless.images.transports.skopeo import storage_image

        return storage_image(source.where, text, Cache(), progress)
    from runrootless.images import transports

    cache = Cache()
    name = reference.parse_name(source.where)
    transport = choice.transport(
        options.transport, name, cache, options.tls_verify, options.cert_dir
    )
    return transports.get(transport, text, name.reference, platform, cache, progress)


def _archive(path: str, limit: Limit) -> Archive:
    try:
        return Archive(path, Cache().path, Limit(limit.maximum))
    except OSError as error:
        raise Error(f"{path}: {error.strerror}") from None


def _is_shell(arguments: Sequence[str]) -> bool:
    return len(arguments) == 1 and os.path.basename(arguments[0]) in _SHELLS


def _parse(words: Sequence[str]) -> _Options | None:
    """Return what the command line says, None where its help was told. Raises ``Error``."""
    parsed = own.parse("bundle", BUNDLE, words, "SOURCE DIR ...", 2)
    if parsed is None:
        return None
    source, directory, *command = parsed.arguments
    # A flag behind DIR would be a word of the command, unless that is said.
    if command and command[0].startswith("-") and words[-len(command) - 1] != "--":
        raise Error(
            f"bundle: {command[0]} is behind DIR: flags come before SOURCE, and -- comes before "
            "a COMMAND that begins with a dash"
        )
    verifies = parsed.get("tls-verify")
    for flag in ("tls-verify", "transport"):
        if parsed.get(flag):
            own.require_choice(flag, parsed.get(flag))
    return _Options(
        source,
        directory,
        command,
        parsed.is_on("force"),
        parsed.is_on("tty"),
        parsed.is_on("quiet"),
        parsed.get("user"),
        parsed.get("platform"),
        parsed.get("mirror"),
        parsed.get("transport", "auto"),
        verifies == "true" if verifies else None,
        parsed.get("cert-dir"),
        _size(parsed.get("max-size")) if parsed.get("max-size") else _MAXIMUM,
    )


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d{1,18})([kKmMgGtT]?)(?:i?[bB])?", text)
    if found is None or not int(found[1]):
        raise Error(f"--max-size takes a size, 500M or 20G, not {text}")
    return int(found[1]) * _UNITS[found[2].lower()]
