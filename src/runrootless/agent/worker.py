"""A thread that answers the notifications of one listener.

Each listener has a thread of its own that waits in the ioctl: asking poll(2) first,
which one thread for all of them would have to, takes a system call more for each. Handlers
share their buffers, so one thread at a time is in them; quick handlers are each thread's own.
"""

from __future__ import annotations

import errno
import os
import select
from _thread import start_new_thread
from fcntl import ioctl

from runrootless.agent.waiting import Waiting
from runrootless.emulation.call import UNDECIDED, Call, Waits
from runrootless.linux import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.agent.log import Log
    from runrootless.agent.views import View, Views
    from runrootless.emulation.emulator import Emulator

_X32_BIT = 0x40000000
_RECEIVE, _SEND = seccomp.RECEIVE, seccomp.SEND
_NO_NOTIFICATION = bytes(seccomp.NOTIFICATION_SIZE)
_CONTINUE = seccomp.FLAG_CONTINUE
_ANSWERED = Call.ANSWERED
_unpack_key = seccomp.KEY.unpack
_pack_into = seccomp.RESPONSE.pack_into


def _is_woken_at_the_end() -> bool:
    """Return whether who waits for a notification learns that no process is left: Linux 6.11."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)) or 0)) >= (6, 11)


class Workers:
    """The threads of one container, and what they share.

    ``ended`` is a descriptor that becomes readable whenever a thread has ended.
    """

    def __init__(self, emulator: Emulator, views: Views, log: Log) -> None:
        self.ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._emulator = emulator
        self._handlers = emulator.handlers()
        self._views = views
        self._log = log
        self._lock = emulator.lock
        self._waiting = Waiting(self._lock, views, self._finish)
        self._listeners: set[int] = set()
        self._finished: list[tuple[int, BaseException | None]] = []

    def __bool__(self) -> bool:
        """Return whether some listener is served."""
        return bool(self._listeners)

    def start(self, listener: int) -> None:
        """Serve a listener, which is closed when that ends. Raises RuntimeError without threads."""
        start_new_thread(self._run, (listener,))
        self._listeners.add(listener)

    def reap(self) -> None:
        """Take note of the threads that have ended. Raises what a thread could not deal with."""
        os.eventfd_read(self.ended)
        while self._finished:
            listener, error = self._finished.pop()
            self._listeners.discard(listener)
            os.close(listener)
            if error is not None:
                raise error

    def _run(self, listener: int) -> None:
        failure: BaseException | None = None
        try:
            self._serve(listener, self._views.of_this_thread())
        except BaseException as error:
            failure = error
        self._finished.append((listener, failure))
        os.eventfd_write(self.ended, 1)

    def _serve(self, listener: int, view: View) -> None:
        quick_handlers, views = self._emulator.quick_handlers(), self._views
        notification = bytearray(seccomp.NOTIFICATION_SIZE)
        response = bytearray(seccomp.RESPONSE_SIZE)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        waits_in_poll = not _is_woken_at_the_end()
        while True:
            if waits_in_poll and not poll.poll()[0][1] & select.POLLIN:
                return
            # Without a function for it, and for the answer: see emulation/quick.py.
            notification[:] = _NO_NOTIFICATION
            try:
                ioctl(listener, _RECEIVE, notification)
            except OSError:
                # The caller was killed before its notification could be read, or all are gone.
                if any(events & select.POLLHUP for _, events in poll.poll(0)):
                    return
                continue
            identifier, system_call = _unpack_key(notification)
            value: int | None = UNDECIDED
            if system_call in quick_handlers and not views.varied:
                try:
                    value = quick_handlers[system_call](notification, listener)
                except OSError:
                    # The handler will meet with the same.
                    pass
                except Exception as error:
                    self._log.exception("a quick handler", error)
            if value == UNDECIDED:
                value = self._handle(view, system_call, Call(bytes(notification), listener))
            if value is None:
                _pack_into(response, 0, identifier, 0, 0, _CONTINUE)
            elif value < 0:
                _pack_into(response, 0, identifier, 0, value, 0)
            elif value == _ANSWERED:
                continue
            else:
                _pack_into(response, 0, identifier, value, 0, 0)
            try:
                ioctl(listener, _SEND, response)
            except OSError:
                # Interrupted by a signal, in which case the call is repeated, or killed.
                pass

    def _handle(self, view: View, system_call: bytes, call: Call) -> int | None:
        """Return what its handler says to a call."""
        handler = self._handlers.get(system_call)
        if handler is None:
            return _unknown(system_call)
        with self._lock:
            try:
                return view.handle(handler, call) if self._views.varied else handler(call)
            except OSError as error:
                return -(error.errno or errno.EIO)
            except Waits as waits:
                return self._wait(call, waits)
            except Exception as error:
                return self._failed(call, error)

    def _wait(self, call: Call, waits: Waits) -> int:
        try:
            self._waiting.add(call, waits)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return _ANSWERED

    def _finish(self, call: Call, retry: Callable[[], int | None]) -> None:
        try:
            value = retry()
        except OSError as error:
            value = -(error.errno or errno.EIO)
        except Waits:
            raise
        except Exception as error:
            value = self._failed(call, error)
        if value != _ANSWERED:
            call.answer(value)

    def _failed(self, call: Call, error: Exception) -> int:
        self._log.exception(f"a call of process {call.pid}", error)
        return -errno.EIO


def _unknown(system_call: bytes) -> int | None:
    """Return the answer to a call that is not in the table."""
    number, _ = seccomp.NUMBER.unpack(system_call)
    # Programs of the x32 ABI see their calls fail, rather than a half-emulated system.
    return -errno.ENOSYS if number & _X32_BIT else None
