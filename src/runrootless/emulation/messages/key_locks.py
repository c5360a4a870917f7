"""A lock for each key, which exists as long as a thread holds it or waits for it."""

from __future__ import annotations

from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType


class KeyLocks:
    """Locks by number."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        # With how many threads hold it or wait for it.
        self._locks: dict[int, tuple[LockType, int]] = {}

    def acquire(self, key: int) -> None:
        """Wait for the lock of a number and hold it."""
        with self._lock:
            lock, users = self._locks.get(key) or (allocate_lock(), 0)
            self._locks[key] = lock, users + 1
        lock.acquire()

    def release(self, key: int) -> None:
        """Let go of the lock of a number."""
        with self._lock:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = lock, users - 1
        lock.release()
