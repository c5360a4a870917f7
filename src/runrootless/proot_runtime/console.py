"""The pseudo-terminal of a container, for a foreground command or a console socket."""

from __future__ import annotations

import os
import select
import signal
import socket
import termios
import tty
from fcntl import ioctl

from runrootless.errors import Error

_BLOCK = 1 << 16
_WINDOW_SIZE = 8


def send(path: str, master: int) -> None:
    """Send the master of a pseudo-terminal to a console socket, as runc does (--console-socket).

    Raises Error if nobody takes it.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            socket.send_fds(connection, [os.ttyname(master).encode()], [master])
    except OSError as error:
        raise Error(f"cannot send the terminal to {path}: {error.strerror}") from None


def own_terminal() -> int:
    """Return which of the standard descriptors is a terminal. Raises Error if none is."""
    for descriptor in (0, 1, 2):
        if os.isatty(descriptor):
            return descriptor
    raise Error("the process wants a terminal, and there is none: set process.terminal to false")


class Console:
    """Joins the caller's terminal to that of the container, from ``with`` on."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.terminal = own_terminal()
        self._attributes = termios.tcgetattr(self.terminal)

    def __enter__(self) -> Console:
        self._resize()
        signal.signal(signal.SIGWINCH, lambda *_: self._resize())
        tty.setraw(self.terminal)
        return self

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self.terminal, termios.TCSADRAIN, self._attributes)

    def _resize(self) -> None:
        size = ioctl(self.terminal, termios.TIOCGWINSZ, bytes(_WINDOW_SIZE))
        ioctl(self.master, termios.TIOCSWINSZ, size)

    def relay(self) -> None:
        """Pass on what is typed and what is printed, until the container has no terminal."""
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        poll.register(0, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                try:
                    block = os.read(descriptor, _BLOCK)
                except OSError:
                    # EIO: all other sides of it are closed.
                    block = b""
                if descriptor == self.master:
                    if not block:
                        return
                    _write_all(1, block)
                elif block:
                    _write_all(self.master, block)
                else:
                    poll.unregister(0)


def _write_all(descriptor: int, block: bytes) -> None:
    while block:
        block = block[os.write(descriptor, block) :]
