"""Strings in a process's memory, up to the last byte before what is not mapped."""

import ctypes
import os
from collections.abc import Iterator

import pytest

from runrootless.linux.memory import PAGE_SIZE, Memory

PAGES = 3

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, *(ctypes.c_size_t,) * 5)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)

PROT_READ_WRITE = 3
MAP_PRIVATE_ANONYMOUS = 0x22


@pytest.fixture
def end() -> Iterator[int]:
    """The address after some pages of this process's, which cannot be read from there on."""
    size = (PAGES + 1) * PAGE_SIZE
    start = libc.mmap(None, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, 2**64 - 1, 0)
    assert libc.mprotect(start + PAGES * PAGE_SIZE, PAGE_SIZE, 0) == 0
    yield start + PAGES * PAGE_SIZE
    libc.munmap(start, size)


@pytest.fixture
def memory(end: int) -> Memory:
    """The reader, in whose buffer there is an earlier string already."""
    memory = Memory()
    ctypes.memmove(end - PAGE_SIZE, b"e" * (PAGE_SIZE - 1) + b"\0", PAGE_SIZE)
    assert memory.read_string(os.getpid(), end - PAGE_SIZE) == b"e" * (PAGE_SIZE - 1)
    return memory


@pytest.mark.parametrize("length", [0, 1, 254, 255, 256, 257, 511, 512, 4094, 4095])
@pytest.mark.parametrize("behind", [0, 1, 255, 256, 257, 4095, 4096, 4097])
def test_string(memory: Memory, end: int, length: int, behind: int) -> None:
    """Whatever page it begins on, and however near to its end."""
    text = bytes(1 + index % 255 for index in range(length))
    address = end - behind - length - 1
    ctypes.memmove(address, text + b"\0", length + 1)
    assert memory.read_string(os.getpid(), address) == text


@pytest.mark.parametrize("length", [1, 255, 256, 257, 4000])
def test_unterminated_string(memory: Memory, end: int, length: int) -> None:
    """One that runs into what is not mapped cannot be read."""
    ctypes.memmove(end - length, b"x" * length, length)
    assert memory.read_string(os.getpid(), end - length) is None


@pytest.mark.parametrize("behind", [PAGE_SIZE, PAGE_SIZE + 100, 2 * PAGE_SIZE - 300])
def test_limit(memory: Memory, end: int, behind: int) -> None:
    """A string that is too long is cut where that shows."""
    address = end - PAGE_SIZE - behind
    ctypes.memset(address, ord("x"), PAGE_SIZE + behind)
    assert memory.read_string(os.getpid(), address) == b"x" * PAGE_SIZE


def test_not_mapped(memory: Memory, end: int) -> None:
    """Nothing is there to read."""
    assert memory.read_string(os.getpid(), end) is None
