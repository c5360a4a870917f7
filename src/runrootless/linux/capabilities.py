"""What the kernel holds of a thread's capabilities: capget(2), capabilities(7)."""

from __future__ import annotations

import struct

from runrootless.linux.libc import address, c_void_p, check, quick_function
from runrootless.linux.processes import read_status, status_fields

HEADER = struct.Struct("=Ii")
"""``struct __user_cap_header_struct``: a version and a thread."""

VERSION = 0x20080522
"""``_LINUX_CAPABILITY_VERSION_3``."""

DATA = struct.Struct("=6I")
"""Two times ``struct __user_cap_data_struct``: effective, permitted and inheritable, the low
32 bits of each, then the high ones."""

_capget = quick_function("capget")
_capset = quick_function("capset")


def capabilities(pid: int) -> tuple[int, int, int]:
    """Return the effective, permitted and inheritable sets of a thread, as bits.

    They count in the thread's own user namespace. Raises OSError: ESRCH.
    """
    # A buffer for each call: any thread may ask.
    buffer = bytearray(DATA.size)
    check(_capget(HEADER.pack(VERSION, pid), c_void_p(address(buffer))), "capget")
    return unpack(buffer)


def set_effective(effective: int) -> int:
    """Make as many of the calling thread's permitted capabilities effective; return those before.

    Raises OSError.
    """
    before, permitted, inheritable = capabilities(0)
    data = pack(effective & permitted, permitted, inheritable)
    check(_capset(HEADER.pack(VERSION, 0), data), "capset")
    return before


def is_effective(pid: int, capability: int) -> bool:
    """Return whether a capability, a bit, is in a thread's effective set. Raises OSError: ESRCH."""
    return bool(capabilities(pid)[0] & capability)


def bounding_set(pid: int) -> int:
    """Return what execve(2) may give a thread. Raises OSError where it is gone."""
    return int(status_fields(read_status(pid), b"CapBnd")[0], 16)


def pack(effective: int, permitted: int, inheritable: int) -> bytes:
    """Return three sets as a packed ``DATA``."""
    sets = (effective, permitted, inheritable)
    return DATA.pack(*(value & 0xFFFFFFFF for value in sets), *(value >> 32 for value in sets))


def unpack(data: bytes | bytearray) -> tuple[int, int, int]:
    """Return the three sets of a packed ``DATA``."""
    low_effective, low_permitted, low_inheritable, *high = DATA.unpack(data)
    effective, permitted, inheritable = (value << 32 for value in high)
    return effective | low_effective, permitted | low_permitted, inheritable | low_inheritable
