"""Calls that the kernel allows by a capability, which emulated users have not got.

To the kernel all processes of a container have what its bundle gives: so it is to be refused here
to those whose emulated capabilities lack it. All else is the kernel's. In a user namespace of
its own a process has what the kernel gives it there.
"""

from __future__ import annotations

import errno
import os

from runrootless.emulation.callers.credentials import CAP_SYS_ADMIN, CAP_SYS_BOOT
from runrootless.emulation.handlers import Handlers
from runrootless.linux.namespaces import CLONE_NEWUSER
from runrootless.linux.processes import shares_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.emulation.call import Call
    from runrootless.emulation.callers.identity import Identity

_OPEN_TREE_CLONE = 1
_CONTEXT = "anon_inode:[fscontext]"
# CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET.
_NAMESPACES = 0x80 | 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x20000000 | 0x40000000


def lacks(identity: Identity, call: Call, capability: int) -> bool:
    """Return whether a caller lacks a capability in the container's user namespace.

    Raises OSError where it is gone.
    """
    return not identity.of(call.pid).can(capability) and shares_user_namespace(call.pid)


def may_make_namespaces(identity: Identity, call: Call, flags: int) -> bool:
    """Return whether a caller may have new namespaces by flags of clone(2) and unshare(2).

    Those of a new user namespace are everybody's. Raises OSError where it is gone.
    """
    # unshare(2) takes no others than these 32.
    if not flags & _NAMESPACES or flags & CLONE_NEWUSER or flags >> 32:
        return True
    return not lacks(identity, call, CAP_SYS_ADMIN)


def may_join(identity: Identity, call: Call, descriptor: int, kind: int) -> bool:
    """Return whether a caller may join a namespace by setns(2): a user namespace the kernel says.

    Raises OSError where it is gone.
    """
    if kind & CLONE_NEWUSER or not lacks(identity, call, CAP_SYS_ADMIN):
        return True
    try:
        return os.readlink(f"{call.pid}/fd/{descriptor}").startswith("user:")
    except OSError:
        # EBADF.
        return True


class Privileges(Handlers):
    """Handlers of such calls that no other component has."""

    def administer(self, call: Call) -> int | None:
        """Any that takes CAP_SYS_ADMIN, whatever its arguments."""
        return -errno.EPERM if lacks(self._identity, call, CAP_SYS_ADMIN) else None

    def fsconfig(self, call: Call) -> int | None:
        """fsconfig(2) where it makes or changes a file system."""
        try:
            link = os.readlink(f"{call.pid}/fd/{call.descriptor(0)}")
        except OSError:
            # EBADF.
            return None
        return self.administer(call) if link == _CONTEXT else None

    def open_tree_attr(self, call: Call) -> int | None:
        """open_tree_attr(2), which takes a privilege with OPEN_TREE_CLONE and to set attributes."""
        is_privileged = call.arguments[2] & _OPEN_TREE_CLONE or call.arguments[3]
        return self.administer(call) if is_privileged else None

    def reboot(self, call: Call) -> int | None:
        """reboot(2), which ends a pid namespace."""
        return -errno.EPERM if lacks(self._identity, call, CAP_SYS_BOOT) else None
