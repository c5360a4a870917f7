"""Making a bundle of an image, in a process of its own.

That process is root of a user namespace, where it can be: then the kernel takes file
capabilities, as it does in the container. It ends with this one.
"""

from __future__ import annotations

import json
import os
import resource
import signal

from runrootless.errors import Error, one_line
from runrootless.images.image import parse_json
from runrootless.images.streams import DamagedError, Limit, Stream
from runrootless.images.tar_stream import Tar
from runrootless.linux.namespaces import become_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runrootless.images.image import Image
    from runrootless.images.progress import Progress
    from runrootless.images.unpack import Unpacker

ROOTFS = "rootfs"
IMAGE = "image.json"
"""What a bundle was made of: ``describe``."""

_TELL_EVERY = 256


def unpack(image: Image, directory: int, limit: Limit, progress: Progress) -> list[str]:
    """Unpack an image into ``rootfs`` in the directory that is open as ``directory``.

    Returns lines about what could not be kept. Raises Error. No thread may run.
    """
    _require_whole_characters(image)
    total = sum(max(layer.descriptor.size, 0) for layer in image.layers)
    count = len(image.layers)
    progress.begin(f"unpacking {count} layer{'s' if count != 1 else ''}", total or -1)
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            _work(image, directory, limit, writer, parent)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    result: dict[str, Any] = {}
    try:
        with os.fdopen(reader, "rb") as told:
            for line in told:
                message = json.loads(line)
                if "advance" in message:
                    progress.advance(message["advance"])
                else:
                    result = message
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
        progress.end()
    if "error" in result:
        raise Error(result["error"])
    if status or "notes" not in result:
        raise Error(
            "the process that unpacks has been killed: it may need more memory (ulimit -v), or "
            "the machine has none left"
        )
    return list(result["notes"])


def _require_whole_characters(image: Image) -> None:
    """Raise Error for a configuration with strings that are no Unicode, and cannot be written."""
    what = f"the configuration of {image.source}"
    try:
        json.dumps(parse_json(image.config, what), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])[1:-1]
        raise Error(f"{what} has half a character, {half}: have the image made anew") from None
    except RecursionError:
        raise Error(f"{what} is not valid JSON: it is nested too deeply") from None


def _work(image: Image, directory: int, limit: Limit, writer: int, parent: int) -> None:
    from runrootless.linux.process import set_parent_death_signal

    def tell(**message: object) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(writer, data) :]

    try:
        set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != parent:
            return
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _raise_limit()
        try:
            become_root()
        except OSError:
            # Without capabilities of files then.
            pass
        os.umask(0)
        os.mkdir(ROOTFS, 0o755, dir_fd=directory)
        rootfs = os.open(ROOTFS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        # As runrootless.linux.files wants it.
        os.chdir("/proc")
        notes = _unpack_layers(image, directory, rootfs, limit, tell)
    except BaseException as error:
        tell(error=one_line(error))
    else:
        tell(notes=notes)


def _unpack_layers(image: Image, directory: int, rootfs: int, limit: Limit, tell: Any) -> list[str]:
    from runrootless.images.records import Records
    from runrootless.images.unpack import Unpacker

    records = Records(directory, rootfs)
    unpacker = Unpacker(rootfs, records)
    for number, layer in enumerate(image.layers, 1):
        what = f"layer {number} of {image.source}"
        stream = Stream(
            layer.open(),
            what,
            limit,
            digest=layer.descriptor.digest,
            diff_id=layer.diff_id,
            size=layer.descriptor.size,
        )
        try:
            with stream:
                _unpack_layer(unpacker, stream, what, tell)
        except DamagedError:
            layer.discard()
            raise
    unpacker.finish()
    records.close()
    notes = []
    if records.lost_capabilities:
        notes.append(
            f"{records.lost_capabilities} files are without their capabilities, since no user "
            "namespace can be had: `runrootless doctor` says what is in the way"
        )
    return notes


def _unpack_layer(unpacker: Unpacker, stream: Stream, what: str, tell: Any) -> None:
    told = 0
    try:
        for count in unpacker.unpack(Tar(stream, what)):
            if count % _TELL_EVERY == 0:
                tell(advance=stream.stored - told)
                told = stream.stored
    except Error as error:
        # What is damaged is no proper tar either: that is to be said first.
        stream.finish()
        raise Error(f"{what}: {error}" if what not in str(error) else str(error)) from None
    stream.finish()
    tell(advance=stream.stored - told)


def describe(image: Image) -> dict[str, Any]:
    """Return what a bundle keeps of the image that it was made of, as JSON has it.

    ``manifest`` and ``config`` are the documents as they are stored, with their digests;
    ``manifest`` is null for what is no image.
    """

    def blob(raw: bytes, descriptor: Any) -> dict[str, Any]:
        about = {"raw": raw.decode("utf-8", "surrogateescape")}
        if descriptor is not None:
            about.update(digest=descriptor.digest, mediaType=descriptor.media_type)
        return about

    return {
        "version": 1,
        "source": image.source,
        "layout": image.layout or None,
        "platform": {
            "os": image.platform.os,
            "architecture": image.platform.architecture,
            "variant": image.platform.variant,
        },
        "manifest": blob(image.manifest, image.manifest_descriptor) if image.manifest else None,
        "config": blob(image.config, image.config_descriptor),
        "layers": [
            {
                "digest": layer.descriptor.digest,
                "size": layer.descriptor.size,
                "mediaType": layer.descriptor.media_type,
                "diff_id": layer.diff_id,
            }
            for layer in image.layers
        ],
    }


def write_json(directory: int, name: str, value: Any) -> None:
    """Write a JSON document into a new file of a directory. Raises OSError."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=directory)
    with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(value, file, indent="\t", ensure_ascii=False)
        file.write("\n")


def _raise_limit() -> None:
    """Allow as many open files as may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
