"""All handlers of one container, put together."""

from __future__ import annotations

from runrootless.emulation.capabilities import Capabilities
from runrootless.emulation.chown import Chown
from runrootless.emulation.creation import Creation
from runrootless.emulation.credential_table import CredentialTable
from runrootless.emulation.devices import Devices
from runrootless.emulation.execution import Execution
from runrootless.emulation.i386 import I386
from runrootless.emulation.identity import Identity
from runrootless.emulation.metadata import Metadata
from runrootless.emulation.mounts import Mounts
from runrootless.emulation.nodes import Nodes
from runrootless.emulation.ownership import Ownership
from runrootless.emulation.paths import Paths
from runrootless.emulation.process_files import ProcessFiles
from runrootless.emulation.roots import Roots
from runrootless.emulation.side_store import SideStore
from runrootless.emulation.sockets import Sockets
from runrootless.emulation.table import rows
from runrootless.emulation.xattrs import Xattrs
from runrootless.linux.files import Files
from runrootless.linux.memory import Memory
from runrootless.linux.syscall_numbers import NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from runrootless.emulation.call import Call
    from runrootless.emulation.roots import Views

    Handler: TypeAlias = Callable[[Call], int | None]

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}
"""Machine to ``AUDIT_ARCH_*`` of <linux/audit.h>, as seccomp reports it."""


class Emulator:
    """Answers the intercepted calls of one container."""

    def __init__(self, table: CredentialTable, side_store: SideStore, views: Views) -> None:
        memory = Memory()
        files = Files()
        paths = Paths(memory, files)
        ownership = Ownership(files, side_store)
        identity = Identity(memory, table)
        self._devices = Devices(files, ownership)
        creation = Creation(memory, files, paths, ownership, identity, self._devices)
        self._process_files = ProcessFiles(files, identity)
        self._mounts = Mounts(memory, files, paths, ownership, identity)
        metadata = Metadata(memory, files, paths, ownership, self._process_files)
        self._components: dict[str, object] = {
            "identity": identity,
            "metadata": metadata,
            "i386": I386(memory, metadata),
            "creation": creation,
            "chown": Chown(files, paths, ownership, identity),
            "nodes": Nodes(paths, creation, ownership, identity),
            "capabilities": Capabilities(memory, identity),
            "execution": Execution(files, paths, ownership, identity, self._devices),
            "xattrs": Xattrs(memory, paths, identity),
            "sockets": Sockets(memory, files, paths, ownership, identity, creation),
            "mounts": self._mounts,
            "roots": Roots(memory, files, paths, identity, self._devices, views),
        }

    def joined(self) -> None:
        """Take note that the agent has joined the container. Raises OSError."""
        self._process_files.look()
        self._devices.look()
        self._mounts.look()

    def handlers(self) -> dict[tuple[int, int], Handler]:
        """Return the handler of each (architecture, number) pair that seccomp may report.

        A handler takes a Call and returns what the system call is to return, a negative
        error number included, or None to let the kernel carry it out. It may raise OSError.
        """
        handlers: dict[tuple[int, int], Handler] = {}
        for machine, architecture in AUDIT_ARCHITECTURES.items():
            for name, target, _ in rows(machine):
                number = NUMBERS[machine].get(name)
                if number is not None:
                    component, method = target.split(".")
                    handlers[architecture, number] = getattr(self._components[component], method)
        return handlers
