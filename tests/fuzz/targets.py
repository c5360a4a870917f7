"""What is fuzzed: each function takes bytes as a stranger may have made them.

It fails where the decoder does something else than it documents.
"""

import ctypes
import os
import socket
import struct
from typing import Any

from runrootless.agent.listener import Connection
from runrootless.bundle.host import HostFacts
from runrootless.bundle.json_file import dump, parse
from runrootless.bundle.spec import check
from runrootless.bundle.transform import transform
from runrootless.emulation.call import Call
from runrootless.emulation.files import access_lists
from runrootless.emulation.files.creation import read_how
from runrootless.emulation.stores import attribute_store, owner_store
from runrootless.emulation.stores.journal import Contents
from runrootless.emulation.stores.record import decode, encode
from runrootless.errors import Error
from runrootless.linux.control_data import COMPAT, NATIVE
from runrootless.linux.memory import Memory
from runrootless.linux.seccomp import NOTIFICATION_SIZE

_OWN = os.getpid()


def record(data: bytes) -> None:
    """The extended attribute user.rootlesscontainers."""
    try:
        found = decode(data)
    except ValueError:
        return
    assert decode(encode(found)) == found


def _journal(contents: Contents, again: Contents, data: bytes) -> None:
    taken = contents.take(data, 0)
    assert 0 <= taken <= len(data)
    lines = b"".join(contents.lines())
    assert len(lines) == contents.size
    whole = again.header(7) + lines
    assert again.take(whole, 0) == len(whole)
    assert sorted(again.lines()) == sorted(contents.lines())


def owners(data: bytes) -> None:
    """The side store of owners."""
    _journal(owner_store._Records(), owner_store._Records(), data)
    owner_store.is_beginning(data)


def attributes(data: bytes) -> None:
    """The side store of attributes."""
    _journal(attribute_store._Files(), attribute_store._Files(), data)
    attribute_store.is_beginning(data)


def acl(data: bytes) -> None:
    """An access control list."""
    want, user, group, value = data[:1], data[1:5], data[5:9], data[9:]
    numbers = [int.from_bytes(part, "little") for part in (want, user, group)]
    for name in (access_lists.ACCESS, b"system.posix_acl_default"):
        access_lists.is_refused(name, value, bool(numbers[0] & 8))
    entries = access_lists.unpack(value)
    if entries is not None:
        assert access_lists._pack(entries) == value
        access_lists._is_valid(entries)
    permitted = access_lists.permits(
        value, numbers[1], lambda other: other == numbers[2], numbers[2], numbers[0] & 7
    )
    assert isinstance(permitted, bool)


def control(data: bytes) -> None:
    """struct msghdr, struct iovec and control messages."""
    for layout in (NATIVE, COMPAT):
        if len(data) >= layout.size:
            layout.header(data)
        whole = len(data) // layout.vector_size * layout.vector_size
        for _, length in layout.vectors(data[:whole]) or ():
            assert length >= 0
        end = 0
        for _, _, offset, size in layout.messages(data):
            assert end <= offset <= offset + size <= len(data)
            end = offset + size


def listener(data: bytes) -> None:
    """The number that a launcher sends, and what else may come, with some descriptors."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    connection = Connection(ours.detach())
    count, message = data[0] % 4 if data else 0, data[1:]
    try:
        ancillary = [
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{count}i", *[null] * count))
        ]
        if message:
            theirs.sendmsg([message], ancillary if count else [])
        theirs.shutdown(socket.SHUT_WR)
        while (found := connection.receive()) is not None:
            # No descriptor of this process is a listener.
            raise AssertionError(found)
    except (Error, OSError):
        pass
    finally:
        connection.close()
        assert len(os.listdir("/proc/self/fd")) == before - 1
        theirs.close()
        os.close(null)


def config(data: bytes) -> None:
    """config.json, as far as the derived one."""
    try:
        spec: Any = parse(data.decode("utf-8", "replace"), "config.json")
        dump(spec).encode()
        check(spec, "config.json")
        transform(spec, "/", HostFacts(), False)
        parse(dump(spec), "the derived one")
    except Error:
        pass


def structures(data: bytes) -> None:
    """struct open_how and struct xattr_args in the memory of a caller."""
    from support.emulators import new_emulator

    if _emulator[0] is None:
        _emulator[0] = new_emulator()
    size, content = int.from_bytes(data[:2], "little"), data[2:]
    buffer = ctypes.create_string_buffer(content, max(len(content), 1))
    address = ctypes.addressof(buffer)
    how = read_how(Memory(), _OWN, address, min(size, len(content)))
    assert how is None or all(0 <= value < 1 << 64 for value in how)
    words = struct.pack(
        "=QIIiIQ6Q", 1, _OWN, 0, 0, 0, 0, 0, 0, 0, 0, address, min(size, len(content))
    )
    call = Call(words.ljust(NOTIFICATION_SIZE, b"\0"), -1)
    values = _emulator[0]._components["xattrs"]._values_at(call)
    assert values is None or all(0 <= value < 1 << 64 for value in values)


_emulator: list[Any] = [None]

TARGETS = {
    target.__name__: target
    for target in (record, owners, attributes, acl, control, listener, config, structures)
}
