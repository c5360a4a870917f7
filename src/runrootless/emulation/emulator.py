"""All handlers of one container, put together."""

from __future__ import annotations

import os

from runrootless.emulation.argument_widths import narrowed
from runrootless.emulation.callers.credential_table import CredentialTable
from runrootless.emulation.fast_state import FastState
from runrootless.emulation.files.access_lists import AccessLists
from runrootless.emulation.files.attributes import Attributes
from runrootless.emulation.files.chown import Chown
from runrootless.emulation.files.creation import Creation
from runrootless.emulation.files.furnishing import Furnishing, Node
from runrootless.emulation.files.metadata import Metadata
from runrootless.emulation.files.modes import Modes
from runrootless.emulation.files.nodes import Nodes
from runrootless.emulation.files.streams import Streams
from runrootless.emulation.files.xattrs import Xattrs
from runrootless.emulation.handlers import Shared
from runrootless.emulation.messages.receiving import Receiving
from runrootless.emulation.messages.senders import Senders
from runrootless.emulation.messages.sending import Sending
from runrootless.emulation.messages.socketcall import Socketcall
from runrootless.emulation.messages.sockets import Sockets
from runrootless.emulation.mounting.mounts import Mounts
from runrootless.emulation.mounting.roots import Roots
from runrootless.emulation.other_abis.i386 import I386
from runrootless.emulation.other_abis.ids_16 import Ids16
from runrootless.emulation.owners.devices import Devices
from runrootless.emulation.processes.capabilities import Capabilities
from runrootless.emulation.processes.execution import Execution
from runrootless.emulation.processes.ids import Ids
from runrootless.emulation.processes.limits import Limits
from runrootless.emulation.processes.preloading import Preloading
from runrootless.emulation.processes.priorities import Priorities
from runrootless.emulation.processes.privileges import Privileges
from runrootless.emulation.processes.process_files import ProcessFiles
from runrootless.emulation.processes.process_options import ProcessOptions
from runrootless.emulation.processes.signals import Signals
from runrootless.emulation.processes.status_files import StatusFiles
from runrootless.emulation.refused import Refused
from runrootless.emulation.stores.attribute_store import AttributeStore
from runrootless.emulation.stores.owner_store import OwnerStore
from runrootless.emulation.table import CHECKS, I386_CHECKS, rows
from runrootless.linux import eventfd, seccomp
from runrootless.linux.files import open_directory
from runrootless.linux.seccomp import AUDIT_ARCHITECTURES
from runrootless.linux.syscall_numbers import NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from runrootless.emulation.call import Handler
    from runrootless.emulation.mounting.roots import Views
    from runrootless.emulation.permissions.checks import Checks


class Emulator:
    """Answers the intercepted calls of one container.

    Several threads may call handlers at once.
    With ``thorough`` the permissions of emulated users are checked. ``terminal_group`` is the
    group of terminals in the container's devpts, None where they are their openers'. ``fast`` is
    what answers some calls in the programs, if there is such a thing.
    """

    def __init__(
        self,
        table: CredentialTable,
        owners: OwnerStore,
        attributes: AttributeStore,
        views: Views,
        thorough: bool = False,
        terminal_group: int | None = None,
        fast: FastState | None = None,
    ) -> None:
        shared = self.shared = Shared(table, owners)
        self._fast = fast
        self._handlers: dict[bytes, Handler] = {}
        self._identity = shared.identity
        self._procfs = shared.procfs
        self._devices = Devices(shared.paths, shared.ownership, shared.stand_ins)
        self._status_files = StatusFiles()
        self._process_files = ProcessFiles(shared.procfs, shared.identity, self._status_files)
        self._expectations = shared.ownership.expectations
        self._expectations.wake = lambda: eventfd.add(self.wakes)
        shared.paths.on_borrowing(self._borrow)
        self._mounts = Mounts(shared, self._status_files, views)
        kept = Attributes(shared.files, attributes)
        access_lists = AccessLists(shared.files, kept)
        self._streams = Streams(shared, terminal_group)
        creation = Creation(shared, self._devices, self._process_files, access_lists, self._streams)
        metadata = Metadata(shared, self._process_files, self._status_files)
        chown = Chown(shared, self._process_files)
        modes = Modes(shared, thorough)
        senders = Senders(shared.identity)
        sending, receiving = Sending(shared, senders), Receiving(shared, senders)
        self._senders = senders
        self.look = metadata.look
        self.readers = self._status_files.reading
        """The threads that something is shown to for a while."""
        self.apart = shared.apart
        """The files of which more is to be said than what they carry."""
        self.programs = shared.programs
        """The programs whose execution is let through."""
        self.thorough = thorough
        self._checks: Checks | None = None
        self._components: dict[str, object] = {}
        if thorough:
            # Other agents do without these modules.
            from runrootless.emulation.permissions.checks import Checks
            from runrootless.emulation.processes.tracing import Tracing

            self._checks = Checks(shared, self._process_files, access_lists, modes)
            self._components["tracing"] = Tracing(shared)
        sockets = Sockets(shared, creation, self._checks)
        ids = Ids(shared)
        self._components |= {
            "ids": ids,
            "metadata": metadata,
            "limits": Limits(shared),
            "i386": I386(metadata),
            "ids_16": Ids16(shared, chown, ids),
            "checks": self._checks,
            "creation": creation,
            "chown": chown,
            "nodes": Nodes(shared, creation),
            "modes": modes,
            "capabilities": Capabilities(shared),
            "process_options": ProcessOptions(shared, self._end_fast_path),
            "execution": Execution(
                shared,
                self._devices,
                self._status_files,
                None if fast is None else Preloading(shared, fast.place),
            ),
            "xattrs": Xattrs(shared, kept, access_lists, self._checks),
            "sending": sending,
            "receiving": receiving,
            "sockets": sockets,
            "socketcall": Socketcall(shared, sockets, sending, receiving),
            "signals": Signals(shared),
            "priorities": Priorities(shared),
            "privileges": Privileges(shared),
            "refused": Refused(),
            "mounts": self._mounts,
            "roots": Roots(shared, self._devices, self._status_files, views),
        }

    def met(self, pid: int) -> None:
        """Take note that ``pid`` is the container's first process. Raises OSError."""
        self._identity.joined(pid)

    def _borrow(self, directory: int, name: bytes) -> None:
        """Note the maker of a file that is reached by a descriptor of another process."""
        holder = self._process_files.holder(directory)
        if holder is not None:
            self.shared.makers.note_at(directory, name, holder)

    def started(self, pid: int) -> None:
        """Take note that a runtime has started ``pid`` in the container."""
        self._streams.give(pid)

    def furnish(self, nodes: Sequence[Node], shown: Sequence[Node], outside: Set[int]) -> None:
        """Make nodes, and show devices of the host, in a process that has joined the container.

        It has one thread. ``outside`` is as ``Furnishing`` has it. Either all nodes are made or
        none. Raises OSError, with the path as ``filename``.
        """
        furnishing = Furnishing(self.shared, outside)
        os.umask(0)
        try:
            for act, some in ((furnishing.make, nodes), (furnishing.show, shown)):
                for node in some:
                    try:
                        act(node)
                    except OSError as error:
                        error.filename = node.path
                        raise
        except BaseException:
            furnishing.undo()
            raise

    def joined(self, is_first: bool = True) -> None:
        """Take note that this process has joined the container, as the first one or another."""
        if not is_first:
            self._status_files.remove_left()
        self._senders.take_over()
        self.shared.ownership.take_over()
        self.shared.host_files.take_over()
        self.shared.makers.take_over()
        self._procfs.look()
        self.shared.makers.look()
        self._status_files.look()
        self._devices.look()
        self._devices.take_over()
        if self._checks is not None:
            self._checks.look_around()
        self._mounts.look()
        if self._fast is not None:
            self._begin_fast_path(self._fast, is_first)

    def _begin_fast_path(self, fast: FastState, is_first: bool) -> None:
        self.shared.apart.show(fast.tell)
        # Should it have ended, it is to stay so.
        if not is_first:
            return
        root = open_directory(b"/")
        try:
            if self.shared.ownership.is_carried(root):
                fast.begin(os.fstat(root).st_dev, self._identity.bounding)
        finally:
            os.close(root)

    def _end_fast_path(self) -> None:
        if self._fast is not None:
            self._fast.stop()

    def descriptors(self) -> list[int]:
        """Return the descriptors that it needs, of those that are open by now."""
        lasting = (
            self._senders,
            self._devices,
            self.shared.ownership,
            self.shared.host_files,
            self.shared.makers,
        )
        return [self.wakes, *(one.kept.fd for one in lasting)]

    @property
    def wakes(self) -> int:
        """A descriptor that becomes readable when ``tidy`` is to be called."""
        return self._status_files.wakes

    def tidy(self) -> int | None:
        """Remove temporary mounts and copies whose time is over; any thread may call this.

        Return when to call it next, in milliseconds; None is when ``wakes`` says.
        """
        times = self._status_files.tidy(), self._expectations.look()
        return min((one for one in times if one is not None), default=None)

    def handlers(self) -> dict[bytes, Handler]:
        """Return the handler of each system call that seccomp may report.

        The keys are number and architecture, packed as they are in a notification.

        A handler takes a Call and returns what the system call is to return, a negative
        error number included, or None to let the kernel carry it out. It may raise OSError,
        and Waits.
        """
        if not self._handlers:
            self._handlers = self._make_handlers()
        return self._handlers

    def _make_handlers(self) -> dict[bytes, Handler]:
        handlers: dict[bytes, Handler] = {}
        for machine, architecture in AUDIT_ARCHITECTURES.items():
            checks = I386_CHECKS if machine == "i386" else CHECKS
            for name, target, _ in rows(machine, self._checks is not None, self._fast is not None):
                number = NUMBERS[machine].get(name)
                if number is None:
                    continue
                component, method = target.split(".")
                handler = getattr(self._components[component], method)
                if self._checks is not None and name in checks and component != "checks":
                    handler = self._checks.guard(getattr(self._checks, checks[name]), handler)
                key = seccomp.NUMBER.pack(number, architecture)
                handlers[key] = narrowed(name, handler)
        return handlers
