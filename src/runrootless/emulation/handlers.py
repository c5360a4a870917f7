"""What the handlers of all system calls have in common."""

from __future__ import annotations

from runrootless.emulation.apart import Apart
from runrootless.emulation.callers.identity import Identity
from runrootless.emulation.callers.makers import Makers
from runrootless.emulation.interrupted import Interrupted
from runrootless.emulation.owners.host_files import HostFiles
from runrootless.emulation.owners.ownership import Ownership
from runrootless.emulation.paths.procfs import Procfs
from runrootless.emulation.paths.resolution import Paths
from runrootless.emulation.paths.stand_ins import StandIns
from runrootless.emulation.programs import Programs
from runrootless.linux.files import Files
from runrootless.linux.memory import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os

    from runrootless.emulation.call import Call
    from runrootless.emulation.callers.credential_table import CredentialTable
    from runrootless.emulation.stores.owner_store import OwnerStore


class Shared:
    """What one container's handlers share: memory, files, owners, credentials, paths.

    Several threads share it.
    """

    __slots__ = (
        "apart",
        "files",
        "host_files",
        "identity",
        "interrupted",
        "makers",
        "memory",
        "ownership",
        "paths",
        "procfs",
        "programs",
        "stand_ins",
    )

    def __init__(self, table: CredentialTable, owners: OwnerStore) -> None:
        self.memory = Memory()
        self.files = Files()
        self.procfs = Procfs()
        self.apart = Apart()
        self.stand_ins = StandIns(self.files, self.apart)
        self.paths = Paths(self.memory, self.files, self.procfs, self.stand_ins)
        self.ownership = Ownership(self.files, owners, self.apart)
        self.host_files = HostFiles(self.apart)
        self.makers = Makers(self.apart)
        self.programs = Programs()
        self.identity = Identity(table, self.makers, self.programs)
        self.interrupted = Interrupted()


class Handlers:
    """Handlers of some system calls: the methods that the table names."""

    def __init__(self, shared: Shared) -> None:
        # Each at hand, for the hot path.
        self._memory = shared.memory
        self._files = shared.files
        self._paths = shared.paths
        self._ownership = shared.ownership
        self._identity = shared.identity
        self._makers = shared.makers
        self._host_files = shared.host_files

    def _kept_owner(self, call: Call, file: int, status: os.stat_result) -> tuple[int, int] | None:
        """Return the owner by a file's record, or of who has made it; None where neither is kept.

        ``status`` is that of the open ``file``, for the caller of ``call``. Raises OSError.
        """
        device = status.st_dev
        record = self._ownership.find(file, status.st_mode, device, status.st_ino)
        if record is not None:
            return record.uid, record.gid
        if device in self._makers.devices:
            return self._makers.owner(device, status.st_ino, self._identity.of(call.pid))
        return None
