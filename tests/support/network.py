"""A network of the tests' own, which leads nowhere, with servers on its loopback device."""

import ctypes
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_NAMESPACES = {"mnt": _CLONE_NEWNS, "net": _CLONE_NEWNET}

ADDRESS = "198.51.100.2"
# Nobody answers there; pasta puts the host's loopback device in its place.
GATEWAY = "198.51.100.1"
# How slirp4netns calls the host's loopback device.
SLIRP_HOST = "10.0.2.2"
NAME = "server.runrootless.test"
NAME_ADDRESS = "192.0.2.7"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


@contextmanager
def own_network() -> Iterator[None]:
    """Put this thread, and what it starts, in a network and mount namespace of its own.

    There is a default route, over a device at whose other end nobody reads; /dev/net/tun is
    open to all users, as udev has it, and the name server in /etc/resolv.conf is 127.0.0.1.
    """
    before = {name: os.open(f"/proc/thread-self/ns/{name}", os.O_RDONLY) for name in _NAMESPACES}
    directory = os.getcwd()
    try:
        _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET), "unshare")
        with tempfile.TemporaryDirectory() as files:
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            os.mknod(f"{files}/tun", 0o20666, os.makedev(10, 200))
            os.chmod(f"{files}/tun", 0o666)
            with open(f"{files}/resolv.conf", "w") as file:
                file.write("nameserver 127.0.0.1\nsearch runrootless.test\n")
            for source, target in (("tun", "/dev/net/tun"), ("resolv.conf", "/etc/resolv.conf")):
                subprocess.run(["mount", "--bind", f"{files}/{source}", target], check=True)
            for command in (
                "link set lo up",
                # One with a carrier: pasta takes over no routes by way of others.
                "link add up0 type veth peer name peer0",
                "link set peer0 up",
                f"address add {ADDRESS}/24 dev up0",
                "link set up0 up",
                f"route add default via {GATEWAY}",
            ):
                subprocess.run(["ip", *command.split()], check=True)
            yield
    finally:
        for name, kind in _NAMESPACES.items():
            _check(_libc.setns(before[name], kind), f"setns {name}")
            os.close(before[name])
        os.chdir(directory)


class Servers:
    """On 127.0.0.1: one that says hello over TCP at ``port``, and a name server."""

    def __init__(self) -> None:
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 53))
        self._threads = [threading.Thread(target=run) for run in (self._greet, self._resolve)]
        for thread in self._threads:
            thread.start()

    def _greet(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            with connection:
                if connection.getpeername() == self._last:
                    return
                connection.sendall(b"hello\n")

    _last: object = None

    def _resolve(self) -> None:
        while True:
            query, client = self._udp.recvfrom(4096)
            if not query:
                return
            self._udp.sendto(_answer(query), client)

    def close(self) -> None:
        """End both."""
        with socket.socket() as last:
            last.bind(("127.0.0.1", 0))
            self._last = last.getsockname()
            last.connect(("127.0.0.1", self.port))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"", ("127.0.0.1", 53))
        for thread in self._threads:
            thread.join()
        self._tcp.close()
        self._udp.close()


def _answer(query: bytes) -> bytes:
    """Return an answer to a query: RFC 1035, section 4. Only NAME exists, and has an A record."""
    labels = []
    position = 12
    while query[position]:
        labels.append(query[position + 1 : position + 1 + query[position]].decode())
        position += 1 + query[position]
    question = query[12 : position + 5]
    name_exists = ".".join(labels).lower() == NAME
    has_record = name_exists and question[-4:] == b"\0\1\0\1"
    flags = b"\x81\x80" if name_exists else b"\x81\x83"
    header = query[:2] + flags + b"\0\1" + bytes([0, has_record]) + b"\0\0\0\0"
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(NAME_ADDRESS)
    return header + question + (record if has_record else b"")
